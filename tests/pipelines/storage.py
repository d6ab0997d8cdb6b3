"""Small real images, folders and archives for the tests of storage."""

import io
import tarfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image


def picture(seed: int, *, kind: str = "JPEG", size: tuple[int, int] = (16, 12), mode: str = "RGB") -> bytes:
    """An image file of smooth random colours."""
    coarse = np.random.default_rng(seed).integers(0, 256, (3, 4, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(coarse).resize(size).convert(mode).save(file, kind)
    return file.getvalue()


def folder(root: Path, *, classes: Iterable[str] = ("cat", "dog"), each: int = 5) -> Path:
    """A folder with `each` JPEGs in a sub-folder for every class, such as `cat` or `train/cat`."""
    for number, name in enumerate(classes):
        (root / name).mkdir(parents=True, exist_ok=True)
        for image in range(each):
            (root / name / f"{image:03d}.jpg").write_bytes(picture(1000 * number + image))
    return root


def tar(path: Path, members: Iterable[tuple[str, bytes]], *, form: int = tarfile.PAX_FORMAT) -> Path:
    """A tar of regular files, as Python's own module writes it."""
    with tarfile.open(path, "w", format=form) as file:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size, info.mtime = len(data), 1_700_000_000.25
            file.addfile(info, io.BytesIO(data))
    return path


def shard(path: Path, *, count: int = 4, seed: int = 0) -> Path:
    """A WebDataset tar of `count` images with the labels 0, 1, 2, 0, ..."""
    content: list[tuple[str, bytes]] = []
    for number in range(count):
        content.append((f"{number:04d}.jpg", picture(seed + number)))
        content.append((f"{number:04d}.cls", str(number % 3).encode()))
    return tar(path, content)


def files(root: Path) -> dict[str, bytes]:
    """Every file below a folder, hidden ones too."""
    return {
        str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()
    }
