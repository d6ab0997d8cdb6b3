"""What the paths of a folder or a zip mean: splits, classes, or a flat heap of images."""

import unicodedata
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath

import numpy as np
from jaxtyping import Int64

# n: images

SUFFIXES = (
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm",
)  # fmt: skip
SPLITS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
}
VIRTUAL_SHARD = 64  # images; small, so that lanes and windows of the sample order mix a sorted folder well


@dataclass(frozen=True)
class Layout:
    """The images of one split: their paths, sorted, and what the folders say about them."""

    names: tuple[str, ...]
    classes: tuple[str, ...]
    labels: Int64[np.ndarray, " n"]

    @property
    def shard_sizes(self) -> Int64[np.ndarray, " s"]:
        """Sizes of the virtual shards of a source that has no real ones."""
        return virtual_shards(len(self.names))


def virtual_shards(images: int) -> Int64[np.ndarray, " s"]:
    """The sizes of the shards into which a source without real ones is cut."""
    whole, rest = divmod(images, VIRTUAL_SHARD)
    return np.array([VIRTUAL_SHARD] * whole + [rest] * (rest > 0), dtype=np.int64)


def virtual_shard(sample: int) -> str:
    """What to call the virtual shard of a sample."""
    first = sample // VIRTUAL_SHARD * VIRTUAL_SHARD
    return f"images {first} to {first + VIRTUAL_SHARD - 1}"


def is_image(name: str) -> bool:
    """Whether a path is an image by its name; hidden files and macOS resource forks are not."""
    path = PurePosixPath(name)
    hidden = any(part.startswith((".", "__MACOSX")) for part in path.parts)
    return path.suffix.lower() in SUFFIXES and not hidden


def arrange(names: Iterable[str], where: str) -> dict[str, Layout]:
    """Sorts the image paths (posix, relative) of `where` into splits; the name is "" where there is but one.

    A path is `[root/][split/]class/.../image` or `[root/][split/]image`. Raises ValueError where ambiguous.
    """
    parts = sorted(PurePosixPath(name).parts for name in names)
    if not parts:
        raise ValueError(f"{where} holds no images ({', '.join(SUFFIXES)}): check the path")
    depth = _common_root(parts)
    tops = {path[depth] for path in parts if len(path) > depth + 1}
    flat = any(len(path) == depth + 1 for path in parts)
    if flat or not ("train" in {SPLITS.get(top) for top in tops} and all(top in SPLITS for top in tops)):
        return {"": _classify(parts, depth, where)}
    groups = defaultdict(list)
    for path in parts:
        groups[path[depth]].append(path)
    if len({SPLITS[top] for top in tops}) < len(tops):
        raise ValueError(
            f"{where} holds one split under two names ({', '.join(sorted(tops))}): keep one of them"
        )
    found = {SPLITS[top]: _classify(paths, depth + 1, f"{where}/{top}") for top, paths in groups.items()}
    return _same_classes(found, where)


def _common_root(parts: list[tuple[str, ...]]) -> int:
    """How many leading folders all paths share, such that a class folder and the image remain."""
    depth = 0
    while all(len(path) > depth + 2 and path[depth] == parts[0][depth] for path in parts):
        depth += 1
    return depth


def _classify(parts: list[tuple[str, ...]], depth: int, where: str) -> Layout:
    names = tuple("/".join(path) for path in parts)
    loose = [path for path in parts if len(path) == depth + 1]
    if len(loose) == len(parts):
        return Layout(names, (), np.full(len(parts), -1, dtype=np.int64))
    if loose:
        raise ValueError(
            f"{where} holds images both in class folders and beside them ({loose[0][-1]}): "
            "move the loose ones into a folder of their class, or out"
        )
    classes = sorted({path[depth] for path in parts})
    check_classes(classes, where)
    numbers = {name: number for number, name in enumerate(classes)}
    return Layout(names, tuple(classes), np.array([numbers[path[depth]] for path in parts], dtype=np.int64))


def check_classes(classes: Iterable[str], where: str) -> None:
    """Raises ValueError where two classes have one name but for case, Unicode form or outer spaces."""
    seen: dict[str, str] = {}
    for name in classes:
        plain = unicodedata.normalize("NFKC", name).casefold().strip()
        if plain in seen:
            raise ValueError(
                f"{where} has two classes with one name ({seen[plain]!r} and {name!r}): rename or merge them"
            )
        seen[plain] = name


def _same_classes(found: dict[str, Layout], where: str) -> dict[str, Layout]:
    """Numbers the classes of every split as those of `train`."""
    classes = found["train"].classes
    numbers = {name: number for number, name in enumerate(classes)}
    result = {}
    for split, layout in found.items():
        check_classes({*classes, *layout.classes}, where)
        if unknown := [name for name in layout.classes if name not in numbers]:
            raise ValueError(
                f"{where}: the classes of {split} and train differ: {split} has {unknown[0]!r}"
                f"{f' and {len(unknown) - 1} more' if len(unknown) > 1 else ''}, which train lacks"
            )
        renumber = np.array([numbers[name] for name in layout.classes], dtype=np.int64)
        result[split] = Layout(
            layout.names, classes, renumber[layout.labels] if layout.classes else layout.labels
        )
    return result
