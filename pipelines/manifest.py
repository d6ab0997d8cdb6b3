"""dataset.json: what a packed data set holds, written last, so that a folder with one is complete."""

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path

from pipelines.index import write_atomically

NAME = "dataset.json"
FORMAT = "raymask-dataset-1"


@dataclass(frozen=True)
class Shard:
    """One shard: its file name, its images, its size in bytes and its checksum."""

    name: str
    images: int
    bytes: int
    checksum: str


@dataclass(frozen=True)
class Manifest:
    """A packed data set. `plan`: digest of what it was packed from and how, "" where unknown."""

    classes: tuple[str, ...]
    shards: tuple[Shard, ...]
    plan: str = ""

    @property
    def images(self) -> int:
        return sum(shard.images for shard in self.shards)

    @property
    def fingerprint(self) -> str:
        return fingerprint(self.shards)


def fingerprint(shards: tuple[Shard, ...]) -> str:
    """The identity of a data set: a digest over its shards' names, counts and checksums."""
    digest = hashlib.blake2b(digest_size=16)
    for shard in shards:
        digest.update(f"{shard.name}\0{shard.images}\0{shard.checksum}\n".encode())
    return digest.hexdigest()


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Writes dataset.json into `folder`."""
    about = {"format": FORMAT, "images": manifest.images, "fingerprint": manifest.fingerprint}
    text = json.dumps(about | asdict(manifest), indent=1, ensure_ascii=False)
    write_atomically(folder / NAME, text.encode() + b"\n")


def read_manifest(folder: Path) -> Manifest | None:
    """The dataset.json of a folder, or None. Raises ValueError for one that is damaged."""
    try:
        text = (folder / NAME).read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return parse_manifest(text, str(folder / NAME))


def parse_manifest(text: bytes, where: str) -> Manifest:
    """The manifest in a dataset.json. Raises ValueError, naming `where` it was read, if it is damaged."""
    try:
        found = json.loads(text)
        if found["format"] != FORMAT:
            raise ValueError(f"its format is {found['format']!r}, not {FORMAT!r}")
        shards = tuple(
            Shard(_base_name(row["name"]), _count(row["images"]), _count(row["bytes"]), str(row["checksum"]))
            for row in found["shards"]
        )
        manifest = Manifest(tuple(map(str, found["classes"])), shards, str(found["plan"]))
        if found["fingerprint"] != manifest.fingerprint:
            raise ValueError("its fingerprint does not fit its list of shards")
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"{where} is damaged ({error}): pack the data set again") from None
    return manifest


def _base_name(name: object) -> str:
    if not isinstance(name, str) or name in ("", ".", "..") or Path(name).name != name or "\0" in name:
        raise ValueError(f"{name!r} is no file name")
    return name


def _count(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 1 << 48:
        raise ValueError(f"{value!r:.40} is no count")
    return value
