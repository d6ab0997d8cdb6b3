"""Repeated augmentation (Hoffer et al., CVPR 2020): an epoch of each chosen image several times, cut anew
each time.

Recipes of this project get the same from several views of one decoded image (`crops.global_crops.count`),
which cost one decode instead of several. This is the order of the official sampler, for those who need its
very sequence.
"""

import numpy as np
from jaxtyping import Int64


def repeated_order(
    order: Int64[np.ndarray, " n"], *, repeats: int = 3, rank: int = 0, world: int = 1, unit: int = 256
) -> Int64[np.ndarray, " kept"]:
    """What `rank` of `world` reads in an epoch whose images come in `order`, each `repeats` times in a row.

    The row of repeats goes round the ranks, so that the repeats of an image fall on different ones; the epoch
    ends after `n` images rounded down to `unit`, so that about one image in `repeats` occurs at all.
    """
    images = len(order)
    row = np.repeat(order, repeats)
    padding = -len(row) % world
    row = np.concatenate([row, row[:padding]])
    return row[rank::world][: images // unit * unit // world]
