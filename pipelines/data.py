"""Which images a run trains on and is judged by: the settings of the data, and how they are opened."""

import os
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from pipelines.crops import MultiCrop
from pipelines.order import LANES
from pipelines.remote.settings import Cache
from pipelines.remote.urls import has_secrets, public, unsupported
from pipelines.repeats import epoch_length
from pipelines.settings import Settings
from pipelines.source import Source, only, open_splits

MAX_PIXELS = 64_000_000
NOT_SET = "data.train is not set: give a folder of images, shards or an archive"


class Data(Settings):
    """Which images, cut how, read by how many threads. A bare string stands for `train`.

    train: folder, shards (URLs, too) or archive of the training images; one with train and val gives both
    val: the images for evaluation, or none
    cache: where shards behind URLs are kept, and how much of them
    allow_pipe: whether `pipe:COMMAND` may run its command, whose output is kept in the cache
    crops: how views are cut from an image
    augment: what the CPU does: everything (cpu), all but colours (split) or only decoding (device), the
        training device doing the rest; auto measures as a run starts, where there is a GPU, and stays with it
    hue: shifted through HSV, or faster by a linear turn of the chroma, where the device does the colours
    threads: threads that read and cut; 0 works in the calling thread, for a debugger; none: one for each core
    repeats: how often an image that is chosen for an epoch comes in it, cut anew (repeated augmentation); an
        epoch stays as long, and so holds one image in `repeats`, others each time
    lanes: parts that an epoch's shards are cut into, of which a rank reads its own where ranks divide them;
        with more than 64 ranks set it to their number. Another number is another order
    shuffle_window: images of a lane among which the order is random; more is better mixed, and reads wider
    prefetch: batches that may be ready before they are asked for
    max_bad_fraction: share of the data set's images that may be unreadable before the run stops
    max_pixels: height times width above which an image is refused without being decoded
    """

    train: str | None = None
    val: str | None = None
    cache: Cache = Cache()
    allow_pipe: bool = False
    crops: MultiCrop = MultiCrop()
    augment: Literal["auto", "cpu", "split", "device"] = "auto"
    hue: Literal["hsv", "linear"] = "hsv"
    threads: int | None = Field(default=None, ge=0)
    repeats: int = Field(default=1, ge=1)
    lanes: int = Field(default=LANES, ge=1)
    shuffle_window: int = Field(default=4096, ge=1)
    prefetch: int = Field(default=2, ge=1)
    max_bad_fraction: float = Field(default=0.01, ge=0, le=1)
    max_pixels: int = Field(default=MAX_PIXELS, ge=1)

    @model_validator(mode="before")
    @classmethod
    def _from_a_bare_path(cls, value: Any) -> Any:
        return {"train": value} if isinstance(value, str) else value

    @field_validator("train", "val")
    @classmethod
    def _without_secrets(cls, path: str | None) -> str | None:
        if path is not None and (why := unsupported(path)):
            raise ValueError(why)
        if path is not None and has_secrets(path):
            raise ValueError(
                f"{public(path)} was given with a password or a signature, which config.yaml would keep: set "
                "the credentials as its protocol wants them, or write such URLs in a file and give @FILE"
            )
        return path

    def epoch_length(self, images: int) -> int:
        """How many images an epoch of a data set of so many goes through, repeats counted."""
        return epoch_length(images, self.repeats)

    @property
    def thread_count(self) -> int:
        """`threads`, or this process's share of the cores (torchrun says how many processes share them)."""
        if self.threads is not None:
            return self.threads
        return max(1, available_cores() // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


def available_cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def open_train_and_val(data: Data) -> tuple[Source, Source | None]:
    """The two data sets of `data`; the second is None where there is none. Raises ValueError."""
    if data.train is None:
        raise ValueError(NOT_SET)
    splits = _splits(data.train, data)
    train = splits["train"] if "train" in splits else only(splits, data.train)
    if data.val is None:
        return train, splits.get("val")
    held_out = _splits(data.val, data)
    return train, held_out["val"] if "val" in held_out else only(held_out, data.val)


def _splits(path: str, data: Data) -> dict[str, Source]:
    return open_splits(path, cache=data.cache, allow_pipe=data.allow_pipe)
