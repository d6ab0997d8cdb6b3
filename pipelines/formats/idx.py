"""The MNIST family's IDX files: `*-images-idx3-ubyte` and the labels file beside it, both plain or gzipped.

Format: http://yann.lecun.com/exdb/mnist. Images are given out as lossless PNGs.
"""

import gzip
import hashlib
import io
import re
import struct
import zlib
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
from jaxtyping import Int64, UInt8
from PIL import Image

from pipelines.formats.layout import virtual_shard, virtual_shards
from pipelines.index import ShardError
from pipelines.notes import NOTHING

# n: images   h, w: pixels

NAME = re.compile(r"(?P<set>.*?)[-_.]?images[-_.]idx3[-_.]ubyte(\.gz)?")
SPLITS = {"train": "train", "t10k": "val", "test": "val"}
IMAGES, LABELS = 0x803, 0x801
MAX_BYTES = 1 << 32


class IdxSource:
    """The images of one IDX pair, held in memory."""

    def __init__(
        self, path: Path, pixels: UInt8[np.ndarray, "n h w"], labels: Int64[np.ndarray, " n"]
    ) -> None:
        self.path, self.pixels, self.labels = path, pixels, labels
        self.notes = NOTHING
        self.classes = [str(number) for number in range(int(labels.max(initial=-1)) + 1)]
        self.shard_sizes = virtual_shards(len(labels))
        self.stored_bytes = pixels.nbytes
        digest = hashlib.blake2b(pixels.tobytes(), digest_size=16)
        digest.update(labels.tobytes() + str(pixels.shape).encode())
        self.fingerprint = digest.hexdigest()

    def __len__(self) -> int:
        return len(self.labels)

    def label(self, sample: int) -> int:
        return int(self.labels[sample])

    def read(self, sample: int) -> bytes:
        """The image as a greyscale PNG."""
        file = io.BytesIO()
        Image.fromarray(self.pixels[sample]).save(file, "PNG")
        return file.getvalue()

    def key(self, sample: int) -> str:
        return f"{sample:06d}.png"

    def shard(self, sample: int) -> str:
        return f"{self.path} ({virtual_shard(sample)})"


def is_idx(path: Path) -> bool:
    """Whether a path is, by its name, a file of IDX images."""
    return NAME.fullmatch(path.name) is not None


def open_idx(files: list[Path]) -> dict[str, IdxSource]:
    """The data sets in files of IDX images: one named "", or train (`train-*`) and val (`t10k-*`)."""
    if len(files) == 1:
        return {"": _open_pair(files[0])}
    splits = {SPLITS.get(cast(re.Match, NAME.fullmatch(file.name))["set"], ""): file for file in files}
    if len(splits) < len(files) or "" in splits:
        raise ValueError(
            f"{files[0].parent} holds several IDX files ({', '.join(f.name for f in files)}): name one"
        )
    found = {split: _open_pair(file) for split, file in splits.items()}
    classes = max((source.classes for source in found.values()), key=len)
    for source in found.values():
        source.classes = classes  # a split may lack the last ones
    return found


def _open_pair(images: Path) -> IdxSource:
    pixels = _read(images, IMAGES, 3)
    if 0 in pixels.shape:
        raise ValueError(f"{images} holds no images: its header says {' x '.join(map(str, pixels.shape))}")
    labels_path = _labels_beside(images)
    if labels_path is None:
        return IdxSource(images, pixels, np.full(len(pixels), -1, dtype=np.int64))
    labels = _read(labels_path, LABELS, 1)
    if len(labels) != len(pixels):
        raise ValueError(
            f"{labels_path} has {len(labels):,} labels for the {len(pixels):,} images of {images.name}"
        )
    return IdxSource(images, pixels, labels.astype(np.int64))


def _labels_beside(images: Path) -> Path | None:
    name = images.name.replace("images", "labels").replace("idx3", "idx1").removesuffix(".gz")
    return next(
        (path for path in (images.with_name(name), images.with_name(name + ".gz")) if path.exists()), None
    )


def _read(path: Path, magic: int, dimensions: int) -> np.ndarray:
    """The bytes of one IDX file. Raises ShardError, naming it, where they do not fit its header."""
    try:
        with cast(BinaryIO, gzip.open(path) if path.suffix == ".gz" else path.open("rb")) as file:
            found, *shape = struct.unpack(f">{1 + dimensions}I", file.read(4 + 4 * dimensions))
            if found != magic:
                raise ValueError(f"its magic number is {found:#x}, not {magic:#x}")
            size = int(np.prod(np.array(shape, dtype=object)))
            if size > MAX_BYTES:
                raise ValueError(f"its header claims {size:,} bytes")
            data = file.read(size + 1)
    except (OSError, EOFError, zlib.error, struct.error, ValueError) as error:
        raise ShardError(f"{path} cannot be read as an IDX file, it may be truncated: {error}") from None
    if len(data) != size:
        state = "truncated" if len(data) < size else "longer than its header says"
        raise ShardError(f"{path} is {state}: {size:,} bytes were expected")
    return np.frombuffer(data, dtype=np.uint8).reshape(shape)
