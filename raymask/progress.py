"""Where a run stands."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Progress:
    """Before step number `step` of `steps`; an epoch is `steps_per_epoch` steps, perhaps with a fraction."""

    step: int
    steps: int
    steps_per_epoch: float

    @property
    def fraction(self) -> float:
        """Share of the training that is done, in [0, 1)."""
        return self.step / self.steps

    @property
    def epoch(self) -> int:
        """Number of the current epoch, from 0."""
        return int(self.step / self.steps_per_epoch + 1e-9)

    @property
    def epochs(self) -> float:
        """Epochs of the whole training."""
        return self.steps / self.steps_per_epoch
