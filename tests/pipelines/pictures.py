"""Pictures for the tests of this room: textured like photographs, made from a seed; and a source of them."""

import io
from pathlib import Path

import numpy as np
from PIL import Image


def picture(seed: int, height: int, width: int) -> np.ndarray:
    """uint8 [height, width, 3], read-only as decoded ones are, with detail at every scale."""
    rng = np.random.default_rng(seed)
    total = np.zeros((height, width, 3))
    for scale in (4, 9, 23, 60):
        coarse = rng.uniform(0, 255, (height // scale + 2, width // scale + 2, 3)).astype(np.uint8)
        total += np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC), float)
    total = (total / 4 - 127) * 2.2 + 127
    pixels = np.clip(total, 0, 255).astype(np.uint8)
    pixels.flags.writeable = False
    return pixels


def encoded(pixels: np.ndarray, kind: str = "JPEG") -> bytes:
    """The picture as the bytes of a file."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, quality=90)
    return file.getvalue()


class Memory:
    """A source in memory, in shards of `shard` pictures; label = number modulo 3."""

    def __init__(self, files: list[bytes], *, shard: int = 8):
        self.files = files
        self.classes = ["a", "b", "c"]
        self.labels = np.arange(len(files)) % 3
        starts = range(0, len(files), shard)
        self.shard_sizes = np.array([min(shard, len(files) - start) for start in starts])
        self.fingerprint = "memory"
        self._shard = shard

    def __len__(self) -> int:
        return len(self.files)

    def label(self, sample: int) -> int:
        return int(self.labels[sample])

    def read(self, sample: int) -> bytes:
        return self.files[sample]

    def key(self, sample: int) -> str:
        return f"{sample:04d}.jpg"

    def shard(self, sample: int) -> str:
        return f"shard-{sample // self._shard}"


def memory(count: int, *, side: int = 40, shard: int = 8, broken: dict[int, bytes] | None = None) -> Memory:
    """`count` small JPEGs of varying size, some replaced by other bytes."""
    files = [encoded(picture(i, side + i % 5, side + i % 7)) for i in range(count)]
    for sample, data in (broken or {}).items():
        files[sample] = data
    return Memory(files, shard=shard)


def decibels(got: np.ndarray, expected: np.ndarray) -> float:
    """Peak signal to noise ratio of 8-bit pictures; infinite where they are equal."""
    error = np.mean((got.astype(float) - expected.astype(float)) ** 2)
    return float(10 * np.log10(255**2 / error)) if error else float("inf")


def lines(path: Path) -> list[str]:
    """The lines of a text file."""
    return path.read_text().splitlines()
