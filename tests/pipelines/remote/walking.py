"""What tests of remote shards share: packed images, and what a loader makes of them, sample by sample."""

import hashlib
from pathlib import Path

from pipelines.batch import Batch
from pipelines.crops import Crops, LocalCrops, MultiCrop
from pipelines.loader import Data, Loader
from pipelines.pack import pack
from pipelines.plan import Packing
from pipelines.remote.settings import Cache
from pipelines.source import Source
from tests.pipelines.storage import folder

SMALL = MultiCrop(global_crops=Crops(size=16), local_crops=LocalCrops(count=1, size=8))
PATIENCE = 20.0
IMAGES = 48

Walked = dict[int, tuple[int, str]]
"""By position in the stream: the sample, and a digest of the pixels of all its views."""


def packed(root: Path, *, shard_images: int = 4, each: int = IMAGES // 2) -> Path:
    """A packed folder of 48 images in 12 shards."""
    images, out = folder(root / "images", each=each), root / "bucket" / "set"
    pack(images, out, Packing(shard_images=shard_images), workers=0)
    return root / "bucket"


def cache(folder: Path, *, gb: float = 1.0, patience: float = PATIENCE) -> Cache:
    return Cache(folder=str(folder), gb=gb, fetches=3, patience=patience)


def data(**changes: object) -> Data:
    return Data.model_validate({"crops": SMALL, "threads": 2, "shuffle_window": 6, **changes})


def walk(
    source: Source, *, rank: int = 0, world: int = 1, start: int = 0, steps: int = 14, **changes: object
) -> Walked:
    """What one rank gets in the steps start .. steps - 1 of batches of eight images: two epochs and more."""
    loader = Loader(
        data(**changes), source, batch=8, seed=5, rank=rank, world=world, start=start, steps=steps
    )
    found: Walked = {}
    with loader:
        for batch in loader:
            found |= told(batch)
    return found


def told(batch: Batch) -> Walked:
    """A batch by positions."""
    rows = [
        b"".join(batch.crops[name][:, row].numpy().tobytes() for name in sorted(batch.crops))
        for row in range(len(batch))
    ]
    digests = [hashlib.blake2b(row, digest_size=8).hexdigest() for row in rows]
    return dict(zip(batch.positions.tolist(), zip(batch.samples.tolist(), digests)))
