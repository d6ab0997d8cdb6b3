"""The learning rate of DeiT-style recipes: one value an epoch, with the lag of the scheduler that made it."""

from math import cos, pi
from typing import Annotated, Literal

from pydantic import Field

from pipelines.settings import Settings
from raymask.progress import Progress

Value = Annotated[float, Field(allow_inf_nan=False)]


class EpochCosine(Settings):
    """A straight line from `start` to `peak`, then a cosine to `end` that counts from epoch 0; constant in an
    epoch.

    With w = round(warmup * epochs) and t = max(0, epoch - lag):
        t <  w: start + (peak - start) * t / w
        t >= w: end + (peak - end) * (1 + cos(pi * t / epochs)) / 2
    The official loops of DeiT and MaskedKD ask for the next value after an epoch by that epoch's own number,
    so that epochs 0 and 1 both run at `start`: lag 1. The cosine is not shifted by the warm-up.
    `epochs` counts epochs of its own over the training; None takes those of the data.

    >>> schedule = EpochCosine(peak=1.0, warmup=0.2)
    >>> [schedule(Progress(step=i, steps=10, steps_per_epoch=1)) for i in range(4)]
    [0.0, 0.0, 0.5, 0.9045084971874737]
    """

    kind: Literal["epoch_cosine"] = "epoch_cosine"
    start: Value = 0.0
    peak: Value
    end: Value = 0.0
    warmup: Annotated[float, Field(ge=0, le=1)] = 0.0
    lag: int = Field(default=1, ge=0)
    epochs: int | None = Field(default=None, ge=1)

    def __call__(self, progress: Progress) -> float:
        epochs = self.epochs or progress.epochs
        now = progress.epoch if self.epochs is None else int(progress.fraction * self.epochs + 1e-9)
        epoch = max(0, now - self.lag)
        warmup = round(self.warmup * epochs)
        if epoch < warmup:
            return self.start + (self.peak - self.start) * epoch / warmup
        return self.end + 0.5 * (self.peak - self.end) * (1 + cos(pi * epoch / epochs))

    def bounds(self) -> tuple[float, float]:
        """The least and the greatest value the schedule can take."""
        return min(self.start, self.peak, self.end), max(self.start, self.peak, self.end)
