"""Where a row's CPU time goes, and what decoding alone would allow."""

import time
from collections.abc import Callable

import numpy as np

from pipelines.crops import MultiCrop
from pipelines.planes import plane_decoder
from pipelines.rows import row_maker
from pipelines.source import Source

LIMIT = 10**9
ROUNDS = 3


def _best(work: Callable[[int], object], images: int) -> float:
    """CPU milliseconds an image of the best round."""
    best = float("inf")
    for _ in range(ROUNDS):
        begun = time.process_time()
        for sample in range(images):
            work(sample)
        best = min(best, (time.process_time() - begun) / images * 1e3)
    return best


def floor(source: Source, images: int) -> float:
    """Images a CPU second that are read and decoded to planes, and nothing else."""
    decode = plane_decoder()
    return 1e3 / _best(lambda sample: decode(source.read(sample), LIMIT), images)


def stages(source: Source, crops: MultiCrop, mode: str, images: int) -> str:
    """Reading, decoding and the row itself (drawing views and, by the mode, cutting them)."""
    decode, encoded = plane_decoder(), [source.read(sample) for sample in range(images)]
    rows = row_maker(mode, crops, most=images, pin=False).take(images)

    def fill(sample: int) -> None:
        stored = decode(encoded[sample], LIMIT)
        rows.write(sample, stored, np.uint64(sample), np.uint64(sample))

    read, alone = _best(source.read, images), _best(lambda sample: decode(encoded[sample], LIMIT), images)
    return f"read {read:.2f}, decode {alone:.2f}, row {_best(fill, images) - alone:.2f} ms an image"
