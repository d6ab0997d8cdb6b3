"""Where the batches of a run come from: threads of this process, or actors on other nodes, all the same."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Protocol

from pipelines.bad import BadSamples
from pipelines.batch import Batch
from pipelines.loader import Loader
from pipelines.source import Source
from raymask.config import Config
from raymask.world import World


class Feed(Protocol):
    """What training needs of a loader. pipelines/loader.py says what each gives."""

    bad: BadSamples

    def __iter__(self) -> Iterator[Batch]: ...

    def take_timings(self) -> dict[str, float]: ...

    def close(self) -> None: ...


def open_feed(
    config: Config,
    source: Source,
    *,
    batch: int,
    world: World,
    start: int = 0,
    steps: int,
    pin: bool,
    bad_log: Path | None = None,
) -> Feed:
    """The batches of one rank of a run of `config`, whoever makes them. Raises ValueError."""
    opened: Callable[..., Feed] = Loader if config.ingest.kind == "local" else _remote(config)
    return opened(
        config.data,
        source,
        batch=batch,
        seed=config.run.seed,
        rank=world.rank,
        world=world.size,
        start=start,
        steps=steps,
        pin=pin,
        bad_log=bad_log,
    )


def check_feed(config: Config, *, batch: int, world: World) -> None:
    """Raises ValueError where nobody could make batches of `batch` images, before anything is started."""
    if config.ingest.kind == "remote":
        from raymask.distributed.ingest import check_actors

        check_actors(config.ingest, config.cluster, batch=batch, world=world.size)


def _remote(config: Config) -> Callable[..., Feed]:
    from raymask.distributed.ingest import RemoteLoader

    return partial(RemoteLoader, ingest=config.ingest, cluster=config.cluster)
