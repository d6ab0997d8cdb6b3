"""The bytes of a sample, past whatever fault of the machine passes: the one way from a source to an image.

A fault never changes the sequence of samples. What comes again each time is the image's own and counts as a
bad sample; what may pass (no descriptors, no memory, storage that is away) is waited for, and then stops.
"""

import threading

from pipelines.decode import BadSample
from pipelines.names import shown
from pipelines.regular import is_passing
from pipelines.remote.retry import Failure, patiently
from pipelines.remote.settings import Cache
from pipelines.source import ShardError, Source

PATIENCE = Cache().patience  # seconds


def fetched(
    source: Source, sample: int, *, patience: float = PATIENCE, stop: threading.Event | None = None
) -> bytes:
    """The encoded image. Raises BadSample where one file is unusable, ShardError where a shard is, or where
    a fault of the machine lasts for `patience` seconds.

    stop: ends the waiting when it is set
    """

    def attempt() -> bytes:
        try:
            return source.read(sample)
        except OSError as error:
            if is_passing(error):
                raise Failure((error.strerror or str(error)).lower()) from error
            raise BadSample("unreadable") from error

    try:
        return patiently(attempt, str(sample), seconds=patience, stop=stop)
    except Failure as failure:
        raise ShardError(
            f"{_named(source, sample)} cannot be read: {failure.reason}: this machine or its storage is at "
            "fault, so that the image is not left out: mend that, then go on"
        ) from None


def _named(source: Source, sample: int) -> str:
    try:
        return f"{shown(source.key(sample))} in {shown(source.shard(sample))}"
    except OSError:  # the name lies in a shard that cannot be opened either
        return f"image {sample} in {shown(source.shard(sample))}"
