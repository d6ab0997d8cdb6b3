"""How long a run is and how often it speaks: images and epochs in, steps out."""

from dataclasses import dataclass

from pydantic import Field, PositiveFloat, PositiveInt

from pipelines.settings import Settings
from raymask.device import Precision
from raymask.parallel import Sharing
from raymask.progress import Progress


class Train(Settings):
    """The length of a training run and what it costs.

    epochs: passes over the training images (a fraction is fine)
    steps: the length in optimiser steps; null is what `epochs` come to
    global_batch: images of one optimiser step, over all ranks
    chunk: images of one forward and backward; a step adds up the gradients of its chunks; null is all at once
    precision: auto takes bf16 where the hardware has it
    sharing: what several processes hold: each the whole method (ddp), or each a share of its weights, their
        gradients and the optimiser's state (fsdp2), which is slower and fits larger networks
    compile: run the networks through torch.compile
    log_steps: steps between two lines of metrics.jsonl
    checkpoint_images: images between two checkpoints (there is one at the end anyway)
    keep: the newest checkpoints that stay; older ones are removed
    """

    epochs: PositiveFloat = 100
    steps: PositiveInt | None = None
    global_batch: PositiveInt = 512
    chunk: PositiveInt | None = None
    precision: Precision = "auto"
    sharing: Sharing = "ddp"
    compile: bool = False
    log_steps: PositiveInt = 10
    checkpoint_images: PositiveInt = 100_000
    keep: int = Field(2, ge=1)


@dataclass(frozen=True)
class Plan:
    """A run in steps: what `Train` means for a data set of so many images.

    steps_per_epoch may be fractional: batches straddle epochs
    """

    steps: int
    steps_per_epoch: float
    batch: int
    log: int
    checkpoint: int
    evaluate: int | None

    def progress(self, step: int) -> Progress:
        """Where the run stands before its step number `step`."""
        return Progress(step=step, steps=self.steps, steps_per_epoch=self.steps_per_epoch)

    def logs_after(self, done: int) -> bool:
        """Whether a line is written once `done` steps are done."""
        return done % self.log == 0 or done == self.steps

    def saves_after(self, done: int) -> bool:
        """Whether a checkpoint is written once `done` steps are done."""
        return done % self.checkpoint == 0 or done == self.steps

    def evaluates_after(self, done: int) -> bool:
        """Whether the backbone is evaluated once `done` steps are done: every so often, and at the end."""
        return done == self.steps or (self.evaluate is not None and done % self.evaluate == 0)


def plan(train: Train, *, images: int, evaluate_images: int | None) -> Plan:
    """The plan for `images` training images. Raises ValueError if they do not fill a batch."""
    if train.global_batch > images:
        raise ValueError(
            f"train.global_batch={train.global_batch} is larger than the data set of {images} images: "
            f"give train.global_batch={images} or less"
        )
    steps = train.steps or max(1, int(train.epochs * images / train.global_batch + 1e-9))

    def every(count: int | None) -> int | None:
        return None if count is None else max(1, round(count / train.global_batch))

    return Plan(
        steps=steps,
        steps_per_epoch=images / train.global_batch,
        batch=train.global_batch,
        log=train.log_steps,
        checkpoint=every(train.checkpoint_images) or 1,
        evaluate=every(evaluate_images),
    )
