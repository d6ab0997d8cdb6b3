"""The names under which images are stored in a tar: their old ones, made fit for WebDataset and unique."""

from collections import Counter
from pathlib import PurePosixPath

from pipelines.formats.layout import SUFFIXES


def tar_keys(names: list[str]) -> list[str]:
    """One key for each name: `folder/stem`, without folders that all share, and without dots in the stem.

    WebDataset cuts a member's base name at its first dot. Names that become equal get a number.
    """
    parts = [_plain(name) for name in names]
    depth = 0
    while parts and all(len(path) > depth + 2 and path[depth] == parts[0][depth] for path in parts):
        depth += 1
    keys = ["/".join(path[depth:]) for path in parts]
    taken, numbers = set(keys), Counter[str]()
    return [_unique(key, taken, numbers) for key in keys]


def _unique(key: str, taken: set[str], numbers: Counter[str]) -> str:
    """The key itself the first time, and after that with the next number that makes it a new one."""
    numbers[key] += 1
    if numbers[key] == 1:
        return key
    while (new := f"{key}-{numbers[key]}") in taken:
        numbers[key] += 1
    taken.add(new)
    return new


def _plain(name: str) -> list[str]:
    path = PurePosixPath(name)
    if path.suffix.lower() in SUFFIXES:
        path = path.with_suffix("")
    *folders, stem = [part for part in path.parts if part.strip("/") and part != ".."] or ["_"]
    parts = [*folders, stem.replace(".", "_")]
    return ["".join(c if c.isprintable() else "_" for c in part) for part in parts]
