"""A process that contends for a small cache; apart from the tests, so that it starts quickly."""

import hashlib
import os
import threading
from typing import Any

from pipelines.remote.cache import NoRoom, ShardCache
from pipelines.remote.settings import Cache
from pipelines.remote.wanted import Wanted


def contend(folder: str, seed: int, worst: Any) -> None:
    """Holds random files, each of which must hold its own bytes; notes the largest size that was seen."""
    cache, never = ShardCache(Cache(folder=folder, gb=3.5e-6)), threading.Event()
    for turn in range(60):
        number = hashlib.blake2b(bytes([seed, turn])).digest()[0] % 8
        content = bytes([number]) * 1000
        wanted = Wanted(f"http://example.org/{number}.tar", 1000, f"blake2b:{number}")
        try:
            file = cache.hold(wanted, lambda file, data=content: os.pwrite(file, data, 0), stop=never)
        except NoRoom:
            continue
        assert os.pread(file, 2000, 0) == content
        worst.value = max(worst.value, cache.stored())
        os.close(file)
