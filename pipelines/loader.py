"""From a source of image bytes to batches of crops, in order, by threads.

The room's rule: what a batch holds is a pure function of (settings, source, seed, step, rank, world). The
number of threads, and when each of them runs, changes nothing but the time it takes.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import Field, model_validator

from pipelines.batch import Batch
from pipelines.crops import MultiCrop
from pipelines.settings import Settings


class Data(Settings):
    """Which images, cut how, read by how many threads. A bare string stands for `train`.

    train: folder, shards or address of the training images; a folder that holds `train` and `val` gives both
    val: the images for evaluation, or none
    crops: how views are cut from an image
    threads: threads that read and cut; 0 works in the calling thread, for a debugger; none: one a free core
    shuffle_window: images of a lane among which the order is random; more is better mixed, and reads wider
    prefetch: batches that may be ready before they are asked for
    max_bad_fraction: share of the data set's images that may be unreadable before the run stops
    max_pixels: height times width above which an image is refused without being decoded
    """

    train: str | None = None
    val: str | None = None
    crops: MultiCrop = MultiCrop()
    threads: int | None = Field(None, ge=0)
    shuffle_window: int = Field(4096, ge=1)
    prefetch: int = Field(2, ge=1)
    max_bad_fraction: float = Field(0.01, ge=0, le=1)
    max_pixels: int = Field(64_000_000, ge=1)

    @model_validator(mode="before")
    @classmethod
    def _from_a_bare_path(cls, value: Any) -> Any:
        return {"train": value} if isinstance(value, str) else value

    def located(self) -> "Data":
        """These settings with `train` and `val` filled in where `train` is a folder that holds both."""
        folder = Path(self.train or "")
        if self.val is None and self.train and (folder / "train").exists() and (folder / "val").exists():
            return self.model_copy(update={"train": str(folder / "train"), "val": str(folder / "val")})
        return self


class Loader:
    """Iterates the batches of steps `start` .. `steps` - 1: this rank's rows of each global batch, in order."""

    def __init__(
        self,
        data: Data,
        source: Any,
        *,
        batch: int,
        seed: int,
        rank: int = 0,
        world: int = 1,
        start: int = 0,
        steps: int,
        pin: bool = False,
        bad_log: Path | None = None,
    ): ...

    def __iter__(self) -> Iterator[Batch]: ...

    def take_timings(self) -> dict[str, float]: ...

    def close(self) -> None: ...
