"""The learning rate of the masked autoencoders: a new value at every iteration."""

from math import cos, pi
from typing import Annotated, Literal

from pydantic import Field

from pipelines.settings import Settings
from raymask.progress import Progress

Value = Annotated[float, Field(allow_inf_nan=False)]


class IterationCosine(Settings):
    """A straight line from `start` to `peak`, half a cosine to `end`; with w = warmup * steps, not rounded:

        step <  w: start + (peak - start) * step / w
        step >= w: end + (peak - end) * (1 + cos(pi * (step - w) / (steps - w))) / 2

    As in the released MAE, ConvMAE and DMJD: step 0 has `start`, the peak occurs once.

    >>> schedule = IterationCosine(peak=1.0, warmup=0.2)
    >>> [schedule(Progress(step=i, steps=10, steps_per_epoch=5)) for i in (0, 1, 2, 6)]
    [0.0, 0.5, 1.0, 0.5]
    """

    kind: Literal["iteration_cosine"] = "iteration_cosine"
    start: Value = 0.0
    peak: Value
    end: Value = 0.0
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.1

    def __call__(self, progress: Progress) -> float:
        warmup = self.warmup * progress.steps
        if progress.step < warmup:
            return self.start + (self.peak - self.start) * progress.step / warmup
        done = (progress.step - warmup) / (progress.steps - warmup)
        return self.end + 0.5 * (self.peak - self.end) * (1 + cos(pi * done))

    def bounds(self) -> tuple[float, float]:
        """The least and the greatest value the schedule can take."""
        return min(self.start, self.peak, self.end), max(self.start, self.peak, self.end)
