"""The index beside a shard (tar or beton): where each image lies, its label, its key: a read is one `pread`.

`NAME.tar.index.safetensors` holds the arrays; its metadata say which shard it belongs to. `pipelines.scan`
builds one for a shard that has none.
"""

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Int64, UInt8
from safetensors import SafetensorError
from safetensors.numpy import load, save

from pipelines.decode import Cause
from pipelines.labels import MAX_CLASSES
from pipelines.notes import NOTHING, Notes, parse_notes
from pipelines.regular import NotRegular, is_passing, open_regular

# n: images of the shard   k: bytes of all keys

FORMAT = "raymask-index-1"
ARRAYS = ("offsets", "sizes", "labels", "key_ends", "key_bytes")
EDGE = 1 << 16  # bytes at either end of a shard that the quick check covers
DIGEST = 32
FAULTS: tuple[Cause, ...] = ("duplicate key", "unsafe name", "link or device")  # -1, -2, -3 as an offset
HASHED = "blake2b:"  # the start of a checksum of a whole shard


class ShardError(ValueError):
    """A whole shard cannot be used: missing, truncated, damaged, or not the one that its index describes."""


@dataclass(frozen=True)
class ShardIndex:
    """What one shard holds. Offsets and sizes in bytes; label -1 where there is none.

    An image that must not be used has its fault for an offset (`FAULTS`), and no size.

    checksum: "blake2b:..." of the whole shard where known (our packer knows it), else "scan:..." of the index
    quick: blake2b of the shard's size and its two ends: shows cheaply that index and shard belong together
    widths: pixels of a row where the bytes are bare RGB rows, 0 for an encoded image; none: all are encoded
    names: classes by label, where the shard names them instead of numbering them
    notes: what was passed over as it was scanned
    modified: when the shard last was, in nanoseconds, as it was scanned; none where that does not matter
    """

    offsets: Int64[np.ndarray, " n"]
    sizes: Int64[np.ndarray, " n"]
    labels: Int64[np.ndarray, " n"]
    key_ends: Int64[np.ndarray, " n"]
    key_bytes: UInt8[np.ndarray, " k"]
    shard_bytes: int
    checksum: str
    quick: str
    widths: Int64[np.ndarray, " n"] | None = None
    names: tuple[str, ...] = ()
    notes: Notes = NOTHING
    modified: int | None = None

    def __len__(self) -> int:
        return len(self.offsets)

    def key(self, place: int) -> str:
        """The WebDataset key of the image number `place`."""
        begin = int(self.key_ends[place - 1]) if place else 0
        return self.key_bytes[begin : int(self.key_ends[place])].tobytes().decode("utf-8", "backslashreplace")


def index_path(shard: Path) -> Path:
    """Where the index of a shard is kept."""
    return shard.with_name(shard.name + ".index.safetensors")


def quick_check(file: int, length: int) -> str:
    """The digest of an open shard's length and of the 64 KiB at either end."""
    digest = hashlib.blake2b(str(length).encode(), digest_size=DIGEST)
    digest.update(os.pread(file, EDGE, 0))
    digest.update(os.pread(file, EDGE, max(0, length - EDGE)))
    return digest.hexdigest()


def hash_shard(file: int) -> str:
    """The checksum of all of an open shard, as our packer notes it."""
    digest, position = hashlib.blake2b(digest_size=DIGEST), 0
    while piece := os.pread(file, 1 << 22, position):
        digest.update(piece)
        position += len(piece)
    return HASHED + digest.hexdigest()


def make_index(
    rows: Sequence[tuple[int, int, int]] | Int64[np.ndarray, "n 3"],
    keys: list[bytes],
    *,
    shard_bytes: int,
    quick: str,
    checksum: str = "",
    widths: Int64[np.ndarray, " n"] | None = None,
    names: tuple[str, ...] = (),
    notes: Notes = NOTHING,
) -> ShardIndex:
    """An index from (offset, size, label) rows and keys; its checksum is the shard's where given."""
    table = np.array(rows, dtype=np.int64).reshape(-1, 3).T.copy()
    key_bytes = np.frombuffer(b"".join(keys), dtype=np.uint8)
    key_ends = np.cumsum([len(key) for key in keys], dtype=np.int64)
    if not checksum:
        digest = hashlib.blake2b(quick.encode(), digest_size=DIGEST)
        arrays: list[np.ndarray] = [table, key_ends, key_bytes]
        for array in [*arrays, widths] if widths is not None else arrays:
            digest.update(array.tobytes())
        digest.update(json.dumps(names).encode() if names else b"")
        checksum = "scan:" + digest.hexdigest()
    offsets, sizes, labels = table
    return ShardIndex(
        offsets, sizes, labels, key_ends, key_bytes, shard_bytes, checksum, quick, widths, names, notes
    )


def index_bytes(index: ShardIndex) -> bytes:
    """The index as a safetensors file."""
    tensors = {name: getattr(index, name) for name in ARRAYS}
    if index.widths is not None:
        tensors["widths"] = index.widths
    about = {
        "shard_bytes": index.shard_bytes,
        "count": len(index),
        "checksum": index.checksum,
        "quick": index.quick,
    }
    more = {"names": index.names, "notes": index.notes.values()}
    about |= {name: value for name, value in more.items() if value}
    about |= {} if index.modified is None else {"modified": index.modified}
    # One JSON value: safetensors promises no order for several, and equal shards shall have equal indexes.
    return save(tensors, metadata={"raymask": json.dumps({"format": FORMAT, **about})})


def parse_index(data: bytes) -> ShardIndex:
    """The index in a safetensors file. Raises ValueError where it is damaged or of another format."""
    try:
        length = int.from_bytes(data[:8], "little")
        about = json.loads(json.loads(data[8 : 8 + length])["__metadata__"]["raymask"])
        tensors = load(data)
        if about["format"] != FORMAT:
            raise ValueError(f"its format is {about['format']!r}, not {FORMAT!r}")
        index = ShardIndex(
            **{name: tensors[name] for name in ARRAYS},
            shard_bytes=_count(about["shard_bytes"]),
            checksum=str(about["checksum"]),
            quick=str(about["quick"]),
            widths=tensors.get("widths"),
            names=tuple(map(str, about.get("names", ()))),
            notes=parse_notes(about.get("notes")),
            modified=_time(about.get("modified")),
        )
    except (SafetensorError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"it is damaged or no index of ours ({error})") from None
    _validate(index)
    return index


def _count(value: object) -> int:
    if type(value) is not int or not 0 <= value < 1 << 62:
        raise ValueError(f"{value!r:.40} is no length")
    return value


def _time(value: object) -> int | None:
    if value is not None and (type(value) is not int or abs(value) >= 1 << 63):
        raise ValueError(f"{value!r:.40} is no time")
    return value


def _validate(index: ShardIndex) -> None:
    """Refuses an index whose numbers would lead outside its shard."""
    count = len(index.offsets)
    numbers = [index.offsets, index.sizes, index.labels, index.key_ends]
    numbers += [] if index.widths is None else [index.widths]
    if any(array.dtype != np.int64 or array.shape != (count,) for array in numbers):
        raise ValueError("its columns have different lengths or types")
    if index.key_bytes.dtype != np.uint8 or index.key_bytes.ndim != 1:
        raise ValueError("its keys are not bytes")
    ends = np.concatenate([[0], index.key_ends])
    if count and (
        min(index.offsets.min() + len(FAULTS), index.sizes.min(), index.key_ends.min()) < 0
        or ((index.offsets < 0) & (index.sizes > 0)).any()
        or (index.sizes > index.shard_bytes - index.offsets).any()
        or (np.diff(ends) < 0).any()
        or ends[-1] != len(index.key_bytes)
    ):
        raise ValueError("it points outside its shard")
    if count and index.labels.max() >= MAX_CLASSES:
        raise ValueError("its labels are no classes")
    if index.names and count and not -1 <= index.labels.min() <= index.labels.max() < len(index.names):
        raise ValueError("its labels lie outside its list of classes")
    if index.widths is not None and ((index.widths < 0) | _ragged(index.sizes, index.widths)).any():
        raise ValueError("its rows of pixels do not fill their images")


def _ragged(sizes: Int64[np.ndarray, " n"], widths: Int64[np.ndarray, " n"]) -> Bool[np.ndarray, " n"]:
    """Which of the bare RGB images do not consist of whole rows."""
    return (widths > 0) & (sizes % np.maximum(3 * widths, 1) != 0)


def write_atomically(path: Path, data: bytes) -> None:
    """Writes a file under a hidden name and renames it, so that nobody ever sees half of it."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def opened(shard: Path) -> Iterator[int]:
    """A read-only descriptor of a shard. Raises ShardError, naming it, where it cannot be opened."""
    file = descriptor(shard)
    try:
        yield file
    finally:
        os.close(file)


def descriptor(shard: Path) -> int:
    """The same for whoever closes it. Raises OSError for a fault of the machine, which may pass."""
    try:
        return open_regular(shard)
    except NotRegular:
        kind = "a folder" if shard.is_dir() else "a device or a pipe"
    except OSError as error:
        if is_passing(error):
            raise
        raise ShardError(f"shard {shard} cannot be opened: {error.strerror}") from None
    raise ShardError(f"shard {shard} is {kind}, not a file: name the shards that are meant, or move it away")
