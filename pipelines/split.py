"""Which images are held out: a keyed, stratified and exact split."""

import numpy as np
from jaxtyping import Int64

from pipelines.order import shuffled
from pipelines.streams import stream

# n: images   t: kept for training   v: held out   c: classes


def hold_out(
    labels: Int64[np.ndarray, " n"], share: float, *, seed: int
) -> tuple[Int64[np.ndarray, " t"], Int64[np.ndarray, " v"]]:
    """The images kept and those held out, ascending; each class gives its share, and the total is exact.

    share: a fraction below 1, or a whole number of images. Raises ValueError where one side would be empty.
    """
    count = round(len(labels) * share) if share < 1 else int(share)
    if not 0 < count < len(labels) or (share >= 1 and share != count):
        raise ValueError(
            f"holdout={share:g} of {len(labels):,} images cannot be held out: give a fraction below 1 "
            f"or a whole number below {len(labels):,}, such that images remain on both sides"
        )
    present, sizes = np.unique(labels, return_counts=True)
    held = np.zeros(len(labels), dtype=bool)
    for label, quota in zip(present.tolist(), _quotas(sizes, count).tolist()):
        members = np.flatnonzero(labels == label)
        held[members[shuffled(stream(seed, "holdout", label), len(members))[:quota]]] = True
    return np.flatnonzero(~held), np.flatnonzero(held)


def _quotas(sizes: Int64[np.ndarray, " c"], count: int) -> Int64[np.ndarray, " c"]:
    """`count` shared out in proportion to `sizes` (largest remainders, the first class wins a tie)."""
    whole, rest = np.divmod(sizes * count, sizes.sum())
    whole[np.argsort(-rest, kind="stable")[: count - whole.sum()]] += 1
    return whole
