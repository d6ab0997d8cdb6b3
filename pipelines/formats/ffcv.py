"""FFCV's .beton files, read by their tables: header, fields, a row for each sample, and where its data lie.

Layout: version 2, which ffcv 1.0.2 writes (its docs: "The beton file format"). Only the tables are read here;
they become an index like that of a tar. ffcv itself is asked for nothing but a second opinion, and only where
one is wanted: its loader turns damaged images into black ones, hangs where a stage fails, and sets the number
of threads of the whole process.
"""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int64

from pipelines.labels import MAX_CLASSES
from pipelines.notes import NOTHING, Notes

# n: samples

VERSION = 2
HEADER = np.dtype(
    [("version", "<u2"), ("fields", "<u2"), ("page", "<u4"), ("samples", "<u8"), ("regions", "<u8")],
    align=True,
)
FIELD = np.dtype([("kind", "<u1"), ("name", "S16"), ("arguments", "S1024")])
REGION = np.dtype([("sample", "<u8"), ("pointer", "<u8"), ("size", "<u8")])

FLOAT, INT, RGB, BYTES, ARRAY, JSON, TENSOR = range(7)
POINTER = np.dtype([("pointer", "<u8"), ("size", "<u8")])
PIXELS = np.dtype([("mode", "<u1"), ("width", "<u2"), ("height", "<u2"), ("pointer", "<u8")])
COLUMN = {
    FLOAT: np.dtype("<f8"), INT: np.dtype("<i8"), RGB: PIXELS, BYTES: POINTER, ARRAY: np.dtype("<u8"),
    JSON: POINTER, TENSOR: np.dtype("<u8"),
}  # fmt: skip
JPEG, RAW = 0, 1  # an RGB field's modes

IMAGE_NAMES = ("image", "img", "jpg", "jpeg", "bytes", "data")
LABEL_NAMES = ("label", "cls", "target", "class", "class_id")
KEY_NAMES = ("key", "__key__", "name", "filename", "path")
MAX_FIELDS = 256
MAX_KEY = 4096  # bytes; a longer one is no name


def rows_type(kinds: list[int]) -> np.dtype:
    """The type of a sample's row, as ffcv puts it together: numpy's own alignment of packed columns."""
    return np.dtype([(f"f{number}", COLUMN[kind]) for number, kind in enumerate(kinds)], align=True)


@dataclass(frozen=True)
class Beton:
    """The tables of an open beton of `length` bytes. All methods raise ValueError where they are damaged."""

    file: int
    length: int
    names: list[str]
    kinds: list[int]
    rows: np.ndarray
    regions: np.ndarray

    @classmethod
    def open(cls, file: int, length: int) -> "Beton":
        header = _table(file, length, HEADER, 1, 0)[0]
        count, position = int(header["fields"]), HEADER.itemsize
        if header["version"] != VERSION or not 0 < count <= MAX_FIELDS:
            raise ValueError("it is damaged, or no beton of FFCV 1")
        if not header["regions"]:
            raise ValueError("it was never finished: whatever wrote it was stopped")
        fields = _table(file, length, FIELD, count, position)
        kinds = fields["kind"].tolist()
        if not set(kinds) <= set(COLUMN):
            raise ValueError("it has a field of a custom kind, whose size nobody knows")
        rows = _table(file, length, rows_type(kinds), int(header["samples"]), position + fields.nbytes)
        start = int(header["regions"])
        regions = _table(file, length, REGION, max(0, length - start) // REGION.itemsize, start)
        if start > length or (length - start) % REGION.itemsize:
            raise ValueError("it is truncated: its last table does not end with the file")
        names = [name.decode("ascii", "backslashreplace") for name in fields["name"].tolist()]
        return cls(file, length, names, kinds, rows, regions)

    def __len__(self) -> int:
        return len(self.rows)

    def images(self) -> tuple[Int64[np.ndarray, " n"], Int64[np.ndarray, " n"], Int64[np.ndarray, " n"]]:
        """Offset and size of every image, and the width of those that are bare pixels (else 0)."""
        number = self._choose((RGB, BYTES), IMAGE_NAMES)
        if number is None:
            raise ValueError(f"it holds no images, or several: its fields are {', '.join(self.names)}")
        column = self.rows[f"f{number}"]
        pointers = column["pointer"].astype(np.int64)
        if self.kinds[number] == BYTES:
            sizes, widths = column["size"].astype(np.int64), np.zeros(len(self), dtype=np.int64)
        else:
            sizes = self._region_sizes(column["pointer"])
            pixels = 3 * column["width"].astype(np.int64) * column["height"]
            raw = column["mode"] == RAW
            if ((column["mode"] > RAW) | raw & (sizes != pixels) | (pixels == 0)).any():
                raise ValueError("it is damaged: its images do not have the sizes that it says")
            widths = np.where(raw, column["width"], 0).astype(np.int64)
        if ((pointers < 0) | (sizes < 0) | (sizes > self.length - pointers)).any():
            raise ValueError("it is truncated or damaged: it says that images lie beyond its end")
        return pointers, sizes, widths

    def labels(self) -> tuple[Int64[np.ndarray, " n"], Notes]:
        """The whole numbers of the field that is called so, or of the only such field; -1 without one.

        Numbers that are no classes count as none, and are noted.
        """
        number = self._choose((INT,), LABEL_NAMES)
        if number is None:
            return np.full(len(self), -1, dtype=np.int64), NOTHING
        found = self.rows[f"f{number}"].astype(np.int64)
        unusable = np.flatnonzero((found < -1) | (found >= MAX_CLASSES))
        if not len(unusable):
            return found, NOTHING
        said = f"sample {unusable[0]}, whose field {self.names[number]!r} holds {found[unusable[0]]}"
        found[unusable] = -1
        return found, Notes(labels=len(unusable), label=said)

    def keys(self) -> list[bytes]:
        """The samples' names, or their numbers where no field names them."""
        numbers = [n for n, name in enumerate(self.names) if name in KEY_NAMES and self.kinds[n] == BYTES]
        if not numbers:
            return [b"%08d" % sample for sample in range(len(self))]
        column = self.rows[f"f{numbers[0]}"]
        inside = (column["size"] <= MAX_KEY) & (column["pointer"] <= self.length)
        if int(column["size"][inside].sum()) > self.length:  # they overlap, which would multiply memory
            raise ValueError("it is damaged: its names take more than the whole file")
        return [
            os.pread(self.file, size, place) if good else b"%08d" % sample
            for sample, (place, size, good) in enumerate(
                zip(column["pointer"].tolist(), column["size"].tolist(), inside)
            )
        ]

    def _choose(self, kinds: tuple[int, ...], names: tuple[str, ...]) -> int | None:
        """The field of one of these kinds that has the first of these names, or else the only one."""
        if RGB in kinds and RGB in self.kinds:  # bytes beside pixels are something else: names, captions
            kinds = (RGB,)
        fits = {
            name: number
            for number, name in enumerate(self.names)
            if self.kinds[number] in kinds and name not in KEY_NAMES
        }
        named = [fits[name] for name in names if name in fits]
        return next(iter(named), next(iter(fits.values())) if len(fits) == 1 else None)

    def _region_sizes(self, pointers: np.ndarray) -> Int64[np.ndarray, " n"]:
        """The sizes of the regions at these places of the file."""
        by_place = self.regions[np.argsort(self.regions["pointer"], kind="stable")]
        places = np.searchsorted(by_place["pointer"], pointers)
        if len(pointers) and (
            places.max() >= len(by_place) or (by_place["pointer"][places] != pointers).any()
        ):
            raise ValueError("it is damaged: it points to images where none lie")
        return by_place["size"][places].astype(np.int64)


def _table(file: int, length: int, kind: np.dtype, count: int, position: int) -> np.ndarray:
    """`count` rows of a table. Raises ValueError, before reading, where the file is too short for them."""
    if position < 0 or count * kind.itemsize > length - position:
        raise ValueError(f"it is truncated or damaged: {length:,} bytes do not hold what it says it holds")
    data = os.pread(file, count * kind.itemsize, position)
    if len(data) != count * kind.itemsize:
        raise ValueError("it cannot be read to its end")
    return np.frombuffer(data, dtype=kind)


def ffcv_disagrees(path: Path) -> str:
    """What plain ffcv's own reader says otherwise about a beton; "" where it agrees. Starts no threads.

    Raises ValueError, saying how to get it, where ffcv is not installed.
    """
    try:
        from ffcv.reader import Reader
    except ImportError as error:
        raise ValueError(
            f"ffcv cannot be imported ({error}): `make ffcv` installs it and the system packages it needs, "
            "on Debian or Ubuntu; .beton files are read and written without it"
        ) from None
    try:
        theirs = Reader(str(path))
    except (AssertionError, ValueError, IndexError, KeyError, UnicodeDecodeError) as error:
        return f"ffcv cannot open it: {error}"
    with path.open("rb") as file:
        ours = Beton.open(file.fileno(), os.fstat(file.fileno()).st_size)
    if theirs.field_names != ours.names or theirs.metadata.tobytes() != ours.rows.tobytes():
        return "ffcv reads another table from it"
    return "" if theirs.alloc_table.tobytes() == ours.regions.tobytes() else "ffcv finds its data elsewhere"
