"""What the ranks of a run tell each other about bad images, so that their limit is one for all of them."""

from typing import get_args

import torch

from pipelines.bad import BadSamples
from pipelines.decode import Cause
from raymask.world import World, sum_across

_CAUSES = (*get_args(Cause), "unknown")  # a log of another version may hold causes of its own


def agree(bad: BadSamples, *, world: World, device: torch.device) -> None:
    """Counts what any rank has met since the last call. A collective: all ranks call it at the same step.

    Raises the same ValueError on every rank where more images are bad than allowed. Samples are told by
    number and not merely counted, since several ranks may meet the same one.
    """
    fresh = bad.fresh()
    mine = torch.zeros(world.size, dtype=torch.int64, device=device)
    mine[world.rank] = len(fresh)
    counts = sum_across(mine).tolist()
    if sum(counts):
        table = torch.zeros(sum(counts), 2, dtype=torch.int64)
        begin = sum(counts[: world.rank])
        table[begin : begin + len(fresh)] = torch.tensor(
            [(sample, _number(cause)) for sample, cause in fresh.items()], dtype=torch.int64
        ).reshape(-1, 2)
        rows = sum_across(table.to(device)).tolist()
        bad.agree({sample: _CAUSES[number] for sample, number in rows})
    bad.check()


def _number(cause: str) -> int:
    return _CAUSES.index(cause if cause in _CAUSES else "unknown")
