"""What a plan is computed from: figures measured on this machine, in a few minutes."""

import os
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import timm
import torch
from safetensors.torch import save_file

from pipelines.crops import MultiCrop
from pipelines.data import Data
from pipelines.index import index_path
from pipelines.loader import Loader
from pipelines.manifest import NAME
from pipelines.pack import Packing, pack
from pipelines.source import open_source
from raymask.heads import Head
from tests.benchmarks._contestant import seconds
from tests.benchmarks.ingest import in_a_process

MODES = ("cpu", "split", "device")
BATCH = 32
SAVED = 500_000_000  # bytes that are written to find out how fast the disk is


@dataclass(frozen=True)
class Measured:
    """image_bytes: of an encoded image; core: by mode, CPU seconds an image by local threads

    wire: by mode, bytes an image on the wire; remote: with ingest=remote, CPU seconds an image, in all
    own: of them in the training process
    index, manifest: bytes an image of an index, and a shard of dataset.json; disk: bytes/s written
    """

    image_bytes: float
    core: dict[str, float]
    wire: dict[str, float]
    remote: dict[str, float]
    own: dict[str, float]
    index: float
    manifest: float
    disk: float


def measure(photos: str, *, images: int, disk: Path) -> Measured:
    """Of DINO's views of these photos."""
    source = open_source(photos)
    remote = {mode: in_a_process("actors", mode, photos, 4 * images) for mode in MODES}
    index, manifest = index_bytes(photos)
    return Measured(
        image_bytes=source.stored_bytes / len(source),
        core={mode: core_seconds(photos, mode, images) for mode in MODES},
        wire={mode: run.wire for mode, run in remote.items()},
        remote={mode: run.cpu for mode, run in remote.items()},
        own={mode: run.own for mode, run in remote.items()},
        index=index,
        manifest=manifest,
        disk=written(disk),
    )


def core_seconds(photos: str, mode: str, images: int) -> float:
    """CPU seconds an image of one thread, the better of two passes after a first one."""
    source, times = open_source(photos), []
    for _ in range(3):
        data = Data(crops=MultiCrop(), threads=0, augment=mode)
        begun = seconds()
        with Loader(data, source, batch=BATCH, seed=0, steps=images // BATCH) as loader:
            for _ in loader:
                pass
        times.append((seconds() - begun) / images)
    return min(times[1:])


def index_bytes(photos: str) -> tuple[float, float]:
    """Bytes of an index for each image, and of dataset.json for each shard, by shards of two sizes."""
    indexes, manifests = {}, {}
    for images in (16, 128):
        with tempfile.TemporaryDirectory() as folder:
            pack(photos, Path(folder) / "shards", Packing(shard_images=images))
            shards = sorted((Path(folder) / "shards").rglob("*.tar"))
            indexes[images] = index_path(shards[0]).stat().st_size
            manifests[len(shards)] = next((Path(folder) / "shards").rglob(NAME)).stat().st_size
    return _slope(indexes), _slope(manifests)


def _slope(found: dict[int, int]) -> float:
    (few, small), (many, large) = sorted(found.items())
    return (large - small) / (many - few)


def written(folder: Path) -> float:
    """Bytes a second of a safetensors file that is written and flushed to the disk."""
    tensor = {"weights": torch.zeros(SAVED // 4)}
    with tempfile.TemporaryDirectory(dir=folder) as below:
        begun = time.perf_counter()
        save_file(tensor, Path(below) / "checkpoint.safetensors")
        file = os.open(Path(below) / "checkpoint.safetensors", os.O_RDONLY)
        os.fsync(file)
        os.close(file)
        return SAVED / (time.perf_counter() - begun)


def parameters(name: str) -> tuple[int, int]:
    """Of a backbone of timm's, and of DINO's head on it."""
    with torch.device("meta"):
        backbone = timm.create_model(name, num_classes=0)
    head = Head().build(backbone.num_features, seed=0)
    return sum(p.numel() for p in backbone.parameters()), sum(p.numel() for p in head.parameters())


def block_parameters(name: str) -> int:
    """Of all blocks of a backbone of timm's."""
    with torch.device("meta"):
        backbone = timm.create_model(name, num_classes=0)
    return sum(p.numel() for p in backbone.blocks.parameters())
