"""What a job gets of the working directory: all but what .gitignore and .rayignore leave out.

Ray does the packing; this looks beforehand, with Ray's own walk over the files, so that a forgotten data set
is named within a second instead of after an upload.
"""

import logging
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

LIMIT = 512 << 20  # of Ray's own, in bytes
MOST = 20_000  # files; a checkout has hundreds


@dataclass
class Package:
    """The files that a job gets, and their bytes."""

    folder: Path
    files: set[str] = field(default_factory=set)
    bytes: int = 0

    def __str__(self) -> str:
        return f"{len(self.files)} files, {self.bytes / 1e6:.1f} MB of {self.folder}"


def look(folder: Path) -> Package:
    """What Ray would pack of `folder`. Raises ValueError as soon as that is too much to send."""
    from ray._private.ray_constants import get_runtime_env_default_excludes
    from ray._private.runtime_env.packaging import _dir_travel, _get_excludes

    package, sizes = Package(folder), Counter[str]()

    def add(path: Path) -> None:
        if not path.is_file():
            return
        relative = path.relative_to(folder)
        size = path.stat().st_size
        package.files.add(str(relative))
        package.bytes += size
        sizes[relative.parts[0]] += size
        if package.bytes > LIMIT or len(package.files) > MOST:
            raise ValueError(_too_much(package, sizes))

    # Ray would log what it leaves out, and each path above a refused one.
    silent = logging.Logger("packaging", logging.CRITICAL + 1)
    excludes = [_get_excludes(folder, get_runtime_env_default_excludes())]
    _dir_travel(folder, excludes, add, include_gitignore=True, logger=silent)
    return package


def check(package: Package, *, needed: tuple[str, ...], token: Path | None) -> None:
    """Raises ValueError where the package lacks what the command names, or holds the cluster's token."""
    for name in needed:
        if name not in package.files:
            raise ValueError(
                f"{name} would not reach the job: .gitignore or .rayignore in {package.folder} leaves it out"
            )
    if token is not None and token.is_relative_to(package.folder.resolve()):
        inside = str(token.relative_to(package.folder.resolve()))
        if inside in package.files:
            raise ValueError(
                f"the token file {token} would be sent with the job: move it out of {package.folder}, or "
                "name it in .rayignore"
            )


def _too_much(package: Package, sizes: Counter[str]) -> str:
    largest = ", ".join(f"{name} ({size / 1e6:,.0f} MB)" for name, size in sizes.most_common(3))
    much = f"{LIMIT >> 20} MB" if package.bytes > LIMIT else f"{MOST:,} files"
    return (
        f"the working directory {package.folder} has more than {much} to send (so far {largest}): name in "
        f"{package.folder / '.rayignore'} what a job does not need, a line each as in .gitignore"
    )
