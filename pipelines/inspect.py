"""What is in a data set: counts and sizes, as values and in words.

from pipelines.inspect import inspect_splits
for contents in inspect_splits("shards").values():
    print(contents)
"""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from pipelines.decode import BadSample, decode
from pipelines.fetch import PATIENCE, fetched
from pipelines.names import printable
from pipelines.order import shuffled
from pipelines.paths import DEFAULT_CACHE
from pipelines.plan import MAX_PIXELS
from pipelines.prepare import kind_of
from pipelines.remote.settings import Cache
from pipelines.remote.urls import public
from pipelines.settings import Settings
from pipelines.source import Source, open_source, open_splits
from pipelines.streams import stream, uniform

# h, w: pixels

SAMPLE = 512
SHOWN = 20  # classes and bad samples that the text names


class Inspect(Settings):
    """What to look at a data set with.

    sheet: PNG file to draw some of the images into, such as sheet.png
    cache: where shards behind URLs are kept, and how patiently they are asked for; its patience is for local
        files, too
    """

    sheet: str | None = None
    cache: Cache = DEFAULT_CACHE


@dataclass(frozen=True)
class Contents:
    """What a data set holds; formats, sizes and bad ones are those of `looked_at` images drawn by key.

    classes: images by class; unlabelled: images without a label; bytes: as they are stored
    widths, heights: smallest, median and largest, in pixels; bad: (name, cause)
    notes: sentences on what was passed over as foreign shards were scanned
    """

    path: str
    images: int
    classes: dict[str, int]
    unlabelled: int
    bytes: int
    shards: int
    fingerprint: str
    looked_at: int
    formats: dict[str, int]
    widths: tuple[int, int, int]
    heights: tuple[int, int, int]
    bad: tuple[tuple[str, str], ...]
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        lines = [
            f"{self.path}",
            f"  images       {self.images:,} in {self.shards:,} shards, {self.bytes / 1e6:,.1f} MB",
            f"  fingerprint  {self.fingerprint}",
            f"  labels       {_labels(self)}",
            f"  of {self.looked_at:,} looked at:",
            f"  formats      {', '.join(f'{count:,} {kind}' for kind, count in self.formats.items())}",
            f"  width        {' / '.join(map(str, self.widths))} pixels (smallest / median / largest)",
            f"  height       {' / '.join(map(str, self.heights))}",
            f"  bad          {len(self.bad)}",
            *(f"    {name}: {cause}" for name, cause in self.bad[:SHOWN]),
            *(f"  note         {said}" for said in self.notes),
        ]
        return "\n".join(map(printable, lines))


def inspect(path: str | Path, *, split: str | None = None, sample: int = SAMPLE, seed: int = 0) -> Contents:
    """What is in the data set at `path`. Raises ValueError where there is none, or several."""
    return _contents(open_source(path, split=split), public(str(path)), sample, seed, PATIENCE)


def inspect_splits(
    path: str | Path, *, sample: int = SAMPLE, seed: int = 0, cache: Cache = DEFAULT_CACHE
) -> dict[str, Contents]:
    """What is in each of the data sets at `path`, by split; a single one has the name ""."""
    return {
        split: _contents(source, f"{public(str(path))} {split}".strip(), sample, seed, cache.patience)
        for split, source in open_splits(path, cache=cache).items()
    }


def _labels(contents: Contents) -> str:
    if not contents.classes:
        return "none"
    shown = ", ".join(f"{name} {count:,}" for name, count in list(contents.classes.items())[:SHOWN])
    more = f", and {len(contents.classes) - SHOWN} more" if len(contents.classes) > SHOWN else ""
    without = f"; {contents.unlabelled:,} without" if contents.unlabelled else ""
    return f"{len(contents.classes)} classes: {shown}{more}{without}"


def _contents(source: Source, path: str, sample: int, seed: int, patience: float) -> Contents:
    labels = source.labels
    counts = np.bincount(labels[labels >= 0], minlength=len(source.classes)).tolist()
    kinds, sizes, bad = Counter[str](), [], []
    looks = draw(len(source), sample, seed=seed)
    for number in looks:
        try:
            kind, pixels = look(source, number, patience=patience)
        except BadSample as error:
            bad.append((source.key(number), str(error.cause)))
            continue
        kinds[kind] += 1
        sizes.append(pixels.shape[:2])
    heights, widths = (np.array(sizes or [(0, 0)]).T).tolist()
    return Contents(
        path=path,
        images=len(source),
        classes=dict(zip(source.classes, counts)),
        unlabelled=int((labels < 0).sum()),
        bytes=source.stored_bytes,
        shards=len(source.shard_sizes),
        fingerprint=source.fingerprint,
        looked_at=len(looks),
        formats=dict(kinds.most_common()),
        widths=_spread(widths),
        heights=_spread(heights),
        bad=tuple(bad),
        notes=source.notes.sentences(),
    )


def draw(images: int, count: int, *, seed: int) -> list[int]:
    """Up to `count` different samples of `images`, drawn by key, without a permutation of all of them."""
    key = stream(seed, "inspect")
    if images <= 4 * count:
        return shuffled(key, images)[:count].tolist()
    drawn = (int(uniform(key, np.uint64(number)) * images) for number in range(4 * count))
    return list(dict.fromkeys(drawn))[:count]


def look(
    source: Source, sample: int, *, patience: float = PATIENCE
) -> tuple[str, UInt8[np.ndarray, "h w 3"]]:
    """The format and the pixels of an image. Raises BadSample, and ShardError where its shard is unusable or
    the machine at fault for `patience` seconds."""
    data = fetched(source, sample, patience=patience)
    return kind_of(data) or "other", decode(data, MAX_PIXELS)


def _spread(values: list[int]) -> tuple[int, int, int]:
    return min(values), int(np.median(values)), max(values)
