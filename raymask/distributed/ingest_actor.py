"""The far side of `ingest=remote`: a loader of its own for some rows of each batch, in a Ray actor.

Actor k of n of training rank r among w is rank r + w * k among w * n to its loader: the rows that are r's are
shared out among its actors as those of a batch among ranks, so each reads its own lanes' shards only.
"""

import os
import socket
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch

from pipelines.bad import BadSamples
from pipelines.batch import Batch
from pipelines.data import Data, open_train_and_val
from pipelines.decode import Cause
from pipelines.loader import Loader
from pipelines.source import Source
from raymask.distributed.ingest_part import Bad, Part, part_of


@dataclass(frozen=True)
class Share:
    """Whose rows an actor makes: it is `number` of the `actors` of training rank `rank` among `world`."""

    rank: int
    world: int
    number: int
    actors: int


@dataclass(frozen=True)
class Work:
    """What all actors of a run have in common.

    folder: where training runs, which is what relative paths of `data` refer to
    """

    data: Data
    folder: str
    fingerprint: str
    batch: int
    seed: int
    steps: int


class Decoder:
    """Makes its share of the batches from `start` on, one after the other.

    known: bad samples that training knows of, by cause
    """

    def __init__(self, work: Work, share: Share, *, start: int, known: Mapping[int, str]):
        torch.set_num_threads(1)
        self._work, self._share, self._start, self._known = work, share, start, known
        self._told: _Told | None = None
        self._loader: Loader | None = None
        self._batches: Iterator[Batch] = iter(())

    def where(self) -> tuple[str, int]:
        """The machine and the process that this is."""
        return socket.gethostname(), os.getpid()

    def part(self, step: int) -> Part:
        """The part of the batch `step`, which follows the one before. What goes wrong is in it, not raised:
        an exception that Ray carries comes with a traceback for a message."""
        try:
            if self._loader is None:
                self._open()
            assert self._loader is not None and self._told is not None
            batch = next(self._batches)
            assert batch.step == step, f"asked for step {step}, at step {batch.step}"
            taken = self._loader.take_timings()
            seconds = {name: taken[name] for name in ("read", "decode", "cut")}
            return part_of(batch, bad=self._told.take(), seconds=seconds)
        except Exception as error:
            met = self._told.take() if self._told is not None else ()
            return Part(step, bad=met, error=_sendable(error))

    def _open(self) -> None:
        work, share = self._work, self._share
        if Path(work.folder).is_dir():
            os.chdir(work.folder)
        source, _ = open_train_and_val(work.data)
        if source.fingerprint != work.fingerprint:
            raise ValueError(
                f"data.train={work.data.train} holds other data here than where training runs (fingerprints "
                f"{source.fingerprint} and {work.fingerprint}): give shards that all nodes see alike"
            )
        self._told = _Told(source, limit=work.data.max_bad_fraction, world=share.world)
        self._told.agree(self._known)
        self._loader = Loader(
            work.data,
            source,
            batch=work.batch,
            seed=work.seed,
            rank=share.rank + share.world * share.number,
            world=share.world * share.actors,
            start=self._start,
            steps=work.steps,
            bad=self._told,
        )
        self._batches = iter(self._loader)


def _sendable(error: Exception) -> Exception:
    """An error that training can raise: a user's as a sentence, with the machine that it is about."""
    said = f"ingest on {socket.gethostname()}: {error or type(error).__name__}"
    if isinstance(error, ValueError):
        return ValueError(said)
    return RuntimeError(f"{said} ({type(error).__name__})")


class _Told(BadSamples):
    """Bad samples that are named to training instead of in a file."""

    def __init__(self, source: Source, *, limit: float, world: int):
        super().__init__(source, limit=limit, world=world)
        self._fresh_names: list[Bad] = []
        self._named: set[int] = set()
        self._naming = threading.Lock()

    def name(self, sample: int, replaced_by: int | None) -> None:
        """Keeps it for the next part."""
        with self._naming:
            if sample not in self._named:
                self._named.add(sample)
                cause = self._agreed.get(sample) or self._fresh[sample]
                self._fresh_names.append(Bad(sample, cast(Cause, cause), replaced_by))

    def take(self) -> list[Bad]:
        """What was met since the last call."""
        with self._naming:
            taken, self._fresh_names = self._fresh_names, []
        return taken
