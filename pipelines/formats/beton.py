"""Writes FFCV's .beton files with the images' own bytes, which decode to the same pixels as from a tar.

Fields: `image` (BytesField), `label` (IntField, -1 without), `key` (BytesField). Plain ffcv 1.0.2 reads them.
Its own writer would start processes, wait for ever where one fails, and give other bytes each time.
"""

import tempfile
from pathlib import Path

import numpy as np

from pipelines.formats.ffcv import BYTES, FIELD, HEADER, INT, REGION, VERSION, rows_type
from pipelines.formats.hashed import HashedFile

SUFFIX = ".beton"
FIELDS = (("image", BYTES), ("label", INT), ("key", BYTES))
SMALLEST_PAGE = 1 << 21  # bytes; ffcv refuses smaller ones, and wants powers of two


class BetonShard:
    """A beton in the making: samples in, the offsets of their images out.

    The tables stand before the data and are known last, so the data wait in an unnamed file in `folder`.
    """

    def __init__(self, file: HashedFile, folder: Path) -> None:
        self._file = file
        self._spool = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115  (its end is `close`, or that of the writer)
        self._sizes: list[tuple[int, int, int]] = []

    def add(self, key: str, extension: str, data: bytes, label: int) -> None:
        """Appends an image; its bytes say of what format it is, so that `extension` goes nowhere."""
        name = key.encode("utf-8", "surrogateescape")
        self._spool.write(data)
        self._spool.write(name)
        self._sizes.append((len(data), len(name), label))

    def close(self) -> list[int]:
        """Writes the beton; gives where in it the images lie."""
        sizes = np.array(self._sizes, dtype=np.int64).reshape(-1, 3)
        places, page = place(sizes[:, 0] + sizes[:, 1], tables_bytes(len(sizes)))
        end = int(places[-1] + sizes[-1, 0] + sizes[-1, 1]) if len(sizes) else tables_bytes(0)
        self._file.write(_tables(sizes, places, page, end))
        self._spool.seek(0)
        for start, (size, name, _) in zip(places.tolist(), self._sizes):
            self._file.write(bytes(start - self._file.position))
            self._file.write(self._spool.read(size + name))
        self._file.write(_regions(sizes, places))
        self._file.flush()
        self.abandon()
        return places.tolist()

    def abandon(self) -> None:
        """Lets go of what waits."""
        self._spool.close()


def tables_bytes(samples: int) -> int:
    """The bytes of the tables at the front."""
    return HEADER.itemsize + len(FIELDS) * FIELD.itemsize + samples * _ROWS.itemsize


_ROWS = rows_type([kind for _, kind in FIELDS])


def place(sizes: np.ndarray, start: int) -> tuple[np.ndarray, int]:
    """Where pieces of these sizes lie from `start` on, none across a border of pages; and a page's size."""
    page = max(SMALLEST_PAGE, 1 << (int(sizes.max(initial=1)) - 1).bit_length())
    places = np.empty(len(sizes), dtype=np.int64)
    for number, size in enumerate(sizes.tolist()):
        if start // page != (start + max(size, 1) - 1) // page:
            start = (start // page + 1) * page
        places[number] = start
        start += size
    return places, page


def _tables(sizes: np.ndarray, places: np.ndarray, page: int, end: int) -> bytes:
    """The front of the file. sizes: of image, key, and the label, a row for each sample."""
    header = np.zeros(1, dtype=HEADER)
    header["version"], header["fields"], header["page"] = VERSION, len(FIELDS), page
    header["samples"], header["regions"] = len(sizes), end
    fields = np.zeros(len(FIELDS), dtype=FIELD)
    fields["name"], fields["kind"] = zip(*((name.encode(), kind) for name, kind in FIELDS))
    rows = np.zeros(len(sizes), dtype=_ROWS)
    rows["f0"]["pointer"], rows["f0"]["size"] = places, sizes[:, 0]
    rows["f1"] = sizes[:, 2]
    rows["f2"]["pointer"], rows["f2"]["size"] = places + sizes[:, 0], sizes[:, 1]
    return header.tobytes() + fields.tobytes() + rows.tobytes()


def _regions(sizes: np.ndarray, places: np.ndarray) -> bytes:
    """The table at the end: every piece of data, by sample."""
    regions = np.zeros((len(sizes), 2), dtype=REGION)
    regions["sample"] = np.arange(len(sizes))[:, None]
    regions["pointer"] = np.stack([places, places + sizes[:, 0]], axis=1)
    regions["size"] = sizes[:, :2]
    return regions.tobytes()
