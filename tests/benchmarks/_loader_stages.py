"""Where a row's time goes, and what decoding alone would allow."""

import time

from pipelines.crops import MultiCrop
from pipelines.loader import Data, Loader
from pipelines.planes import plane_decoder
from pipelines.source import Source

LIMIT = 10**9


def floor(source: Source, images: int, rounds: int = 3) -> float:
    """Images a CPU second that are read and decoded to planes, and nothing else."""
    decode, best = plane_decoder(), 0.0
    for _ in range(rounds):
        begun = time.process_time()
        for sample in range(images):
            decode(source.read(sample), LIMIT)
        best = max(best, images / (time.process_time() - begun))
    return best


def stages(source: Source, crops: MultiCrop, mode: str, images: int) -> str:
    """Milliseconds of wall time an image by stage, in one thread."""
    data = Data(crops=crops, threads=0, augment=mode)
    loader = Loader(data, source, batch=32, seed=0, steps=images // 32)
    for _ in loader:
        pass
    timings = loader.take_timings()
    return ", ".join(f"{name} {timings[name] / images * 1e3:.2f} ms" for name in ("read", "decode", "cut"))
