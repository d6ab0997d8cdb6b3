"""Sources: images by number, wherever they lie. `open_source` finds out what a path is.

A sample is an index into the data set: shards sorted by name, end to end. Reading is random access and
thread-safe; no format decodes, executes or unpickles anything.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from jaxtyping import Int64

from pipelines.formats.compressed import is_compressed, why_refused
from pipelines.formats.folder import open_folder
from pipelines.formats.idx import is_idx, open_idx
from pipelines.formats.joined import JoinedSource
from pipelines.formats.layout import SPLITS
from pipelines.formats.sharded import open_packed, open_shards
from pipelines.formats.zipped import open_zip
from pipelines.index import ShardError
from pipelines.journal import JOURNAL
from pipelines.manifest import NAME
from pipelines.notes import Notes
from pipelines.paths import DEFAULT_CACHE, expand
from pipelines.remote.opening import open_remote
from pipelines.remote.settings import Cache
from pipelines.remote.urls import is_remote, is_shard, public

__all__ = ["ShardError", "Source", "expand", "only", "open_source", "open_splits"]

# n: samples   s: shards

Path_ = str | Path


class Source(Protocol):
    """A data set: `len` images as they are stored.

    classes: their names, by label; labels: -1 where there is none
    fingerprint: changes when the data do; that of a folder covers names, labels and sizes, not contents
    stored_bytes: of the shards, or of the images where there are none
    notes: what was passed over as shards were scanned, for the user to know
    """

    classes: list[str]
    shard_sizes: Int64[np.ndarray, " s"]
    fingerprint: str
    stored_bytes: int
    notes: Notes

    @property
    def labels(self) -> Int64[np.ndarray, " n"]: ...

    def __len__(self) -> int: ...

    def label(self, sample: int) -> int:
        """The label of one sample, without reading those of all."""
        ...

    def read(self, sample: int) -> bytes:
        """The encoded image. Raises ShardError where a whole shard is unusable, OSError where one file is, or
        the machine is at fault (`pipelines.fetch` tells these apart).

        Raises BadSample for one that must not be used, such as a link in a tar.
        """
        ...

    def key(self, sample: int) -> str:
        """The name of the sample inside its shard."""
        ...

    def shard(self, sample: int) -> str:
        """The name of the shard the sample lies in, for messages."""
        ...


def open_source(
    path: Path_ | Sequence[Path_],
    *,
    split: str | None = None,
    cache: Cache = DEFAULT_CACHE,
    allow_pipe: bool = False,
) -> Source:
    """The data set at `path`: a packed folder, tars or betons (a folder of them, a glob, braces, an `@file`
    list, or a list of these), a zip, an IDX file, or a folder of images.

    split: "train", "val" or "test", for a path that holds them. Raises ValueError in one sentence otherwise.
    cache: where shards behind URLs are kept; allow_pipe: whether `pipe:COMMAND` may run its command
    """
    return only(open_splits(path, cache=cache, allow_pipe=allow_pipe), path, split=split)


def only(found: dict[str, Source], path: Path_ | Sequence[Path_], *, split: str | None = None) -> Source:
    """The one of the data sets found at `path` that is meant: that split, or the only one there is."""
    if split is None and len(found) == 1:
        return next(iter(found.values()))
    if split in found:
        return found[split]
    names = ", ".join(repr(name) for name in found if name)
    if split is None:
        raise ValueError(f"{_said(path)} holds several data sets ({names}): open one of them")
    raise ValueError(f"{_said(path)} has no split {split!r}: it holds {names or 'a single data set'}")


def open_splits(
    path: Path_ | Sequence[Path_], *, cache: Cache = DEFAULT_CACHE, allow_pipe: bool = False
) -> dict[str, Source]:
    """The data sets at `path`, by split; a single one has the name ""."""
    paths = [str(p) for p in ([path] if isinstance(path, str | Path) else path)]
    if not paths:
        raise ValueError("the list of data paths is empty: give at least one")
    files = [name for p in paths for name in expand(p, cache=cache, allow_pipe=allow_pipe)]
    remote = [name for name in files if is_remote(name)]
    if len(remote) == len(files) and (len(files) == 1 or all(is_shard(name) for name in files)):
        return dict(open_remote(files, cache))
    if not remote and all(map(is_shard, files)) and not (len(files) == 1 and Path(files[0]).is_dir()):
        return {"": open_shards([Path(name) for name in files])}
    if len(files) > 1:
        return {"": JoinedSource([open_source(name, cache=cache) for name in files], _said(files))}
    return _open_one(Path(files[0]))


def _open_one(path: Path) -> dict[str, Source]:
    if path.is_dir():
        if unfinished := [place for place in (path, path.parent) if (place / JOURNAL).exists()]:
            raise ValueError(f"packing into {unfinished[0]} was not finished: run the same pack again")
        if (path / NAME).exists():
            return {"": open_packed(path)}
        if splits := _splits_in(path):
            return splits
        if shards := _shards_in(path):
            return {"": open_shards(shards)}
        if pairs := sorted(file for file in path.iterdir() if is_idx(file)):
            return dict(open_idx(pairs))
        return dict(open_folder(path))
    if not path.exists():
        raise ValueError(f"there is no data set at {path}: the path does not exist")
    if not path.is_file():
        raise ValueError(f"{path} is no file but a pipe or a device: give a folder, shards or an archive")
    if path.suffix.lower() == ".zip":
        return dict(open_zip(path))
    if is_idx(path):
        return dict(open_idx([path]))
    if is_compressed(path.name):
        raise ValueError(why_refused(path))
    raise ValueError(f"{path} is neither a folder of images nor a tar, a beton, a zip or an IDX file")


def _splits_in(folder: Path) -> dict[str, Source]:
    """Packed data sets below a folder; or shards of other tools, in folders that are called like splits."""
    packed, loose = split_folders(folder)
    if packed and loose:
        raise ValueError(without_manifest(next(iter(loose)), packed[0]))
    if packed:
        return {part.name: open_packed(part) for part in packed}
    return {SPLITS[part.name.lower()]: open_shards(shards) for part, shards in loose.items()}


def split_folders(folder: Path) -> tuple[list[Path], dict[Path, list[Path]]]:
    """The packed data sets below a folder, and beside them the folders of other shards.

    Where nothing below is packed, only folders that are called like splits count.
    """
    below = sorted(part for part in folder.iterdir() if part.is_dir())
    packed = [part for part in below if (part / NAME).exists()]
    others = [part for part in below if part not in packed and (packed or part.name.lower() in SPLITS)]
    loose = {part: shards for part in others if (shards := _shards_in(part))}
    for part in others if packed or loose else []:
        if part not in loose and part.name.lower() in SPLITS:
            _refuse_compressed(part)
    return packed, loose


def without_manifest(folder: Path, packed: Path) -> str:
    """The sentence on shards whose manifest is gone, beside a data set that has one."""
    return (
        f"{folder} holds shards but no {NAME}, which {packed} beside it has: pack it again, put the file "
        "back, or name each by itself as data.train and data.val"
    )


def _shards_in(folder: Path) -> list[Path]:
    """The shards in a folder, sorted. Raises ValueError where there are two kinds, or compressed ones."""
    found = sorted(path for path in folder.iterdir() if is_shard(path.name))
    if len({path.name.lower().rpartition(".")[2] for path in found}) > 1:
        raise ValueError(
            f"{folder} holds tars and betons, which may be the same images: name one kind by a glob"
        )
    if found:
        _refuse_compressed(folder)
    return found


def compressed_in(folder: Path) -> list[Path]:
    """The compressed tars in a folder, sorted."""
    return sorted(path for path in folder.iterdir() if is_compressed(path.name))


def _refuse_compressed(folder: Path) -> None:
    """Raises ValueError where compressed tars lie in a folder, because they would be passed over."""
    if found := compressed_in(folder):
        raise ValueError(why_refused(found[0], len(found) - 1))


def _said(path: Path_ | Sequence[Path_]) -> str:
    """Paths for messages, without what URLs keep secret."""
    paths = [path] if isinstance(path, str | Path) else path
    return " + ".join(public(str(one)) for one in paths)
