"""Packs images from anywhere into WebDataset tars or FFCV betons with labels, indexes and a dataset.json.

    from pipelines.pack import Packing, pack
    packed = pack("photos.zip", "shards", Packing(holdout=0.2))   # shards/train and shards/val
    print(packed)

The bytes depend on the images and the settings alone, never on the number of workers or on interruptions.
Shards appear whole or not at all, dataset.json comes last; the same call after a kill goes on where the last
whole shard ended.
"""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from math import ceil
from pathlib import Path
from typing import Any

from pipelines.data import available_cores
from pipelines.hands import How
from pipelines.index import write_atomically
from pipelines.journal import JOURNAL, Journal
from pipelines.keys import tar_keys
from pipelines.manifest import Manifest, read_manifest, write_manifest
from pipelines.meter import Meter
from pipelines.plan import Job, Packing, is_packed, plan_digest, plan_jobs
from pipelines.preparing import Item, prepared
from pipelines.shards import SplitWriter
from pipelines.source import open_splits

__all__ = ["BAD_SAMPLES", "Packed", "Packing", "pack"]

BAD_SAMPLES = "bad_samples.jsonl"


@dataclass(frozen=True)
class Packed:
    """What a pack has made: data sets by split ("" for a single one), and the images left out by cause.

    notes: sentences on what was passed over as foreign shards were scanned
    """

    out: Path
    splits: dict[str, Manifest]
    bad: dict[str, int]
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        lines = []
        for split, found in self.splits.items():
            size = sum(shard.bytes for shard in found.shards) / 1e6
            lines.append(
                f"{self.out / split}: {found.images:,} images of {len(found.classes)} classes, "
                f"{len(found.shards)} shards, {size:,.1f} MB, fingerprint {found.fingerprint}"
            )
        if self.bad:
            causes = ", ".join(f"{count} {cause}" for cause, count in sorted(self.bad.items()))
            lines.append(f"left out: {causes}; named in {self.out / BAD_SAMPLES}")
        return "\n".join([*lines, *self.notes])


def pack(
    source: str | Path | Sequence[str | Path],
    out: str | Path,
    packing: Packing | None = None,
    *,
    workers: int | None = None,
    progress: bool = True,
) -> Packed:
    """Packs what `open_source` understands into `out`, or into `out/train` and `out/val`.

    workers: threads, one for each core if none; progress: whether to report on standard error.
    Raises ValueError in one sentence; finished shards are then kept for the next call, nothing else is.
    """
    packing, root = packing or Packing(), Path(out)
    workers = workers or available_cores()
    sources = open_splits(source, cache=packing.cache, allow_pipe=packing.allow_pipe)
    jobs = plan_jobs(sources, packing)
    plan = plan_digest(jobs, packing)
    notes = tuple(said for split, source in sources.items() for said in source.notes.sentences(split))
    if done := _finished(root, jobs, plan):
        return replace(done, notes=notes)
    _check_folder(root)
    with _write_errors(root), Journal(root, plan) as journal:
        try:
            for job in jobs:
                _pack_split(job, root, journal, packing, workers=workers, progress=progress)
            return replace(_conclude(root, jobs, plan, journal), notes=notes)
        finally:
            _tidy(root, jobs, journal)


def _finished(root: Path, jobs: list[Job], plan: str) -> Packed | None:
    """The result of an earlier call, where it was the same and is complete."""
    if (root / JOURNAL).exists():
        return None
    found = {job.split: read_manifest(root / job.split) for job in jobs}
    splits = {split: manifest for split, manifest in found.items() if manifest and manifest.plan == plan}
    shards = [root / split / shard.name for split, manifest in splits.items() for shard in manifest.shards]
    if len(splits) < len(jobs) or not all(shard.exists() for shard in shards):
        return None
    with suppress(FileNotFoundError):
        lines = (root / BAD_SAMPLES).read_text().splitlines()
        return Packed(root, splits, _by_cause(map(json.loads, lines)))
    return Packed(root, splits, {})


def _check_folder(root: Path) -> None:
    """Makes the folder. Raises ValueError where it already holds something else."""
    try:
        root.mkdir(parents=True, exist_ok=True)
        present = {path.name for path in root.iterdir()}
    except OSError as error:
        raise ValueError(f"cannot pack into {root}: {error.strerror}") from None
    if present - {BAD_SAMPLES} and JOURNAL not in present:
        raise ValueError(
            f"{root} already holds other files ({min(present)}), or a pack of other data or settings: "
            "choose a new or an empty folder"
        )


@contextmanager
def _write_errors(root: Path) -> Iterator[None]:
    """Turns what the disk says into a sentence. Reading an image never raises OSError here."""
    try:
        yield
    except OSError as error:
        raise ValueError(
            f"cannot write to {root}: {error.strerror or error}; what is finished is kept: "
            "make room and run the same pack again, and it goes on from there"
        ) from None


def _pack_split(
    job: Job, root: Path, journal: Journal, packing: Packing, *, workers: int, progress: bool
) -> None:
    """Writes the shards of one split that are not finished yet."""
    names = [job.source.key(sample) for sample in range(len(job.source))]
    keys = names if is_packed(job.source) else tar_keys(names)
    allowed = ceil(packing.max_bad_fraction * len(job.samples))
    with SplitWriter(root / job.split, job, journal, packing) as shards:
        samples = job.samples[shards.items :].tolist()
        how = How(packing.max_side, packing.max_pixels, packing.baseline)
        meter = Meter(job.split or "pack", len(job.samples), done=shards.items, shown=progress)
        with meter:
            patience = packing.cache.patience
            for item in prepared(job.source, samples, how, workers=workers, patience=patience):
                if item.cause:
                    shards.reject(_bad_line(job, item))
                    _check_limit(root, job, journal, shards.bad, allowed)
                else:
                    label = int(job.source.labels[item.sample])
                    shards.add(keys[item.sample], item.extension, item.data, label)
                meter.add(1)
        shards.finish()
    if not journal.of(job.split):
        raise ValueError(
            f"none of the {len(job.samples):,} images{job.split and ' of ' + job.split} can be used"
        )


def _bad_line(job: Job, item: Item) -> dict[str, Any]:
    key, shard = job.source.key(item.sample), job.source.shard(item.sample)
    return {"split": job.split, "sample": item.sample, "key": key, "shard": shard, "cause": item.cause}


def _check_limit(root: Path, job: Job, journal: Journal, bad: list[dict[str, Any]], allowed: int) -> None:
    if len(bad) <= allowed:
        return
    others = [line for line in journal.bad if line["split"] != job.split]
    _write_bad(root, others + bad)
    causes = ", ".join(f"{count} {cause}" for cause, count in sorted(_by_cause(bad).items()))
    raise ValueError(
        f"{len(bad)} of {len(job.samples):,} images cannot be used ({causes}), {allowed} are allowed: "
        f"repair those that {root / BAD_SAMPLES} names, or raise max_bad_fraction"
    )


def _by_cause(lines: Iterable[dict[str, Any]]) -> dict[str, int]:
    return dict(Counter(line["cause"] for line in lines))


def _write_bad(root: Path, lines: list[dict[str, Any]]) -> None:
    write_atomically(root / BAD_SAMPLES, "".join(json.dumps(line) + "\n" for line in lines).encode())


def _conclude(root: Path, jobs: list[Job], plan: str, journal: Journal) -> Packed:
    """Names the bad samples, writes dataset.json for every split, and so declares the pack complete."""
    (root / BAD_SAMPLES).unlink(missing_ok=True)
    if journal.bad:
        _write_bad(root, journal.bad)
    splits = {
        job.split: Manifest(job.classes, tuple(entry.shard for entry in journal.of(job.split)), plan)
        for job in jobs
    }
    for split, manifest in splits.items():
        write_manifest(root / split, manifest)
    journal.delete()
    return Packed(root, splits, _by_cause(journal.bad))


def _tidy(root: Path, jobs: list[Job], journal: Journal) -> None:
    """Leaves nothing half-written behind: no partial files, no folders where no shard was finished."""
    for job in jobs:
        for path in (root / job.split).glob(".*.partial"):
            path.unlink()
    if not journal.entries:
        journal.delete()
        for folder in (*(root / job.split for job in jobs), root):
            with suppress(OSError):  # not empty, or never made
                folder.rmdir()
