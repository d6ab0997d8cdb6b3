"""The teacher as a moving average of the student."""

import torch
from torch import nn

from raymask.sharded import local


@torch.no_grad()
def ema_(teacher: nn.Module, student: nn.Module, momentum: float) -> None:
    """teacher <- momentum * teacher + (1 - momentum) * student, in place, for what both have by name.

    Buffers are left alone, as in the official code, and so is what only the student has (its mask token).
    """
    theirs = dict(student.named_parameters())
    pairs = [(mine, theirs[name]) for name, mine in teacher.named_parameters() if name in theirs]
    assert pairs, "teacher and student share no parameter"
    mine, others = ([local(tensor) for tensor in side] for side in zip(*pairs))
    torch._foreach_lerp_(mine, others, 1 - momentum)
