"""Images in a folder: class sub-folders, or a flat heap; `train/` and `val/` above them make splits."""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

from pipelines.decode import BadSample
from pipelines.formats.compressed import is_compressed, why_refused
from pipelines.formats.layout import Layout, arrange, is_image, virtual_shard
from pipelines.notes import NOTHING
from pipelines.regular import MAX_BYTES, NotRegular, open_regular, read_at


class FolderSource:
    """The images of a folder, sorted by path; a shard is a stretch of 64 of them."""

    def __init__(self, root: Path, layout: Layout) -> None:
        self.root, self.layout = root, layout
        self.notes = NOTHING
        self.classes = list(layout.classes)
        self.labels = layout.labels
        self.shard_sizes = layout.shard_sizes
        self.stored_bytes = 0
        digest = hashlib.blake2b(digest_size=16)
        for name, label in zip(layout.names, layout.labels.tolist()):
            size = _size(root / name)
            self.stored_bytes += size
            digest.update(f"{name}\0{label}\0{size}\n".encode("utf-8", "surrogateescape"))
        self.fingerprint = digest.hexdigest()

    def __len__(self) -> int:
        return len(self.layout.names)

    def label(self, sample: int) -> int:
        return int(self.labels[sample])

    def read(self, sample: int) -> bytes:
        """The file's bytes. Raises OSError, naming it, where it cannot be read, BadSample where it is no
        regular file, or too large. Links are followed."""
        try:
            file = open_regular(self.root / self.layout.names[sample])
        except NotRegular:
            raise BadSample("link or device") from None
        try:
            size = os.fstat(file).st_size
            if size > MAX_BYTES:
                raise BadSample("too many bytes")
            return read_at(file, size, 0)
        finally:
            os.close(file)

    def key(self, sample: int) -> str:
        return self.layout.names[sample]

    def shard(self, sample: int) -> str:
        return f"{self.root} ({virtual_shard(sample)})"


def _size(path: Path) -> int:
    """Bytes of a file; 0 where it cannot be seen, such as behind a dead link: it then is one bad sample."""
    try:
        return path.stat().st_size
    except OSError:
        return 0


def open_folder(root: Path) -> dict[str, FolderSource]:
    """The splits of a folder of images; one named "" where there are none."""
    names = list(walk(root))
    images = [name for name in names if is_image(name)]
    if not images and (others := sorted(filter(is_compressed, names))):
        raise ValueError(why_refused(root / others[0], len(others) - 1))
    found = arrange(images, str(root))
    return {split: FolderSource(root, layout) for split, layout in found.items()}


def walk(root: Path) -> Iterator[str]:
    """The paths of all files below `root`, relative and posix. Links are followed, each folder once."""
    seen = set()
    for folder, below, files in os.walk(root, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:
            below.clear()
            continue
        seen.add(real)
        below[:] = sorted(name for name in below if not name.startswith("."))
        prefix = Path(folder).relative_to(root)
        yield from ((prefix / name).as_posix() for name in files)
