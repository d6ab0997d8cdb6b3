"""What a masked autoencoder can learn from, asked before the first step for the whole training."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from pipelines.crops import MultiCrop
from raymask.backbone import VisionBackbone
from raymask.masks import Mask, hidden_count
from raymask.masks.disjoint import Disjoint
from raymask.targets import FrozenTeacher, Target, Teacher
from raymask.teachers import Frozen, require_maskable

if TYPE_CHECKING:
    from raymask.methods.mae import Mae


def check_masks(mask: Mask, target: Target, body: VisionBackbone, grid: tuple[int, int]) -> None:
    """Raises ValueError where, at any time of the training, a view would hide nothing or lack its guide."""
    low, high = mask.bounds()
    if isinstance(mask.strategy, Disjoint):
        for ratio in (low, high):
            mask.strategy.plan(ratio, grid)
    elif mask.start or not hidden_count(low, grid[0] * grid[1]):
        raise ValueError(
            f"a masked autoencoder learns from hidden patches alone, but mask.start={mask.start:g} and a "
            f"mask ratio down to {low:g} of {grid[0] * grid[1]} patches leave none hidden at times: "
            "set mask.start=0 and a higher mask.ratio"
        )
    if not mask.is_guided:
        return
    if isinstance(target, FrozenTeacher) and mask.guide_block != -1:
        raise ValueError(
            f"mask.strategy.block={mask.guide_block}, but a frozen network gives the attention of its last "
            "block: set mask.strategy.block=-1"
        )
    if isinstance(target, Teacher) and not body.attends:
        raise ValueError(
            "ConvViT has no class token whose attention could guide a mask: choose a strategy without "
            "scores, a plain ViT, or method.target.kind=frozen"
        )
    mask.check_guide(body.depth)


def check_settings(settings: Mae, mask: Mask, crops: MultiCrop) -> None:
    """Raises ValueError for masks and crops that a masked autoencoder cannot train on."""
    method, guides = f"method.kind={settings.kind}", isinstance(settings.target, Teacher | FrozenTeacher)
    if mask.kind != "drop":
        raise ValueError(
            f"{method} drops hidden patches from the encoder, but mask.kind={mask.kind}: set mask.kind=drop"
        )
    if mask.views != "student_globals":
        raise ValueError(
            f"{method} masks the crops that the student sees, but mask.views={mask.views}: "
            "set mask.views=student_globals"
        )
    if crops.local_crops.count:
        raise ValueError(f"{method} has no use for local crops: set data.crops.local_crops.count=0")
    if mask.is_guided and not guides:
        raise ValueError(
            f"mask.strategy.kind={mask.strategy.kind} needs a network that sees the whole crop, and {method} "
            f"has none: set method.target.kind=teacher or frozen (it is {settings.target.kind})"
        )


def fitting(frozen: Frozen, size: tuple[int, int], grid: tuple[int, int]) -> Frozen:
    """The frozen teacher, if it cuts crops of this size into the student's grid of patches."""
    require_maskable(frozen.network, otherwise="another method.target.kind")
    theirs = frozen.grid(torch.empty(1, 3, *size, device="meta"))
    if tuple(theirs) != tuple(grid):
        raise ValueError(
            f"the frozen teacher cuts a crop into {theirs[0]}x{theirs[1]} patches, the student into "
            f"{grid[0]}x{grid[1]}: set method.target.network.image_size so that they agree"
        )
    return frozen
