"""Other loaders, each making DINO's views as its users would write it: one file for each library.

A file imports its library only when its rival is built, and says beside it what it does otherwise than the
official recipe: nothing is left out without a word.
"""

import importlib

from tests.benchmarks._rivals import (
    albumentations,
    dali,
    ffcv,
    kornia,
    official,
    spdl,
    torchvision_v2,
    webdataset,
)
from tests.benchmarks._rivals.rival import Rival

__all__ = ["EVERYONE", "Rival", "why_not"]

EVERYONE = (
    official.IN_A_LOADER,
    official.ALONE,
    webdataset.RIVAL,
    torchvision_v2.RIVAL,
    ffcv.RIVAL,
    albumentations.ANTIALIASED,
    albumentations.CUBIC,
    dali.RIVAL,
    spdl.RIVAL,
    kornia.BATCHED,
    kornia.RUST,
)


def why_not(rival: Rival) -> str:
    """Why it cannot run here, in the words of its own import; nothing where it can."""
    try:
        for module in rival.needs:
            importlib.import_module(module)
    except (ImportError, OSError, RuntimeError) as error:  # libraries of the system that are missing
        return f"{type(error).__name__}: {error}".splitlines()[0]
    return ""
