"""The names under which images are stored in a tar: their old ones, made fit for WebDataset and unique."""

from collections import Counter

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
    """The folders and the stem of a name, printable and without what leads elsewhere."""
    *folders, base = [part for part in name.split("/") if part not in ("", ".", "..")] or ["_"]
    stem, dot, suffix = base.rpartition(".")
    if stem and f"{dot}{suffix}".lower() in SUFFIXES:
        base = stem
    return [_printable(part) for part in (*folders, base.replace(".", "_"))]


def _printable(text: str) -> str:
    return text if text.isprintable() else "".join(c if c.isprintable() else "_" for c in text)
