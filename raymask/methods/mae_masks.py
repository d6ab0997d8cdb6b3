"""Which masks a masked autoencoder can learn from, asked before the first step for the whole training."""

from raymask.backbone import VisionBackbone
from raymask.masks import Mask, hidden_count
from raymask.masks.disjoint import Disjoint
from raymask.targets import FrozenTeacher, Target, Teacher


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
    if isinstance(target, Teacher) and not body.prefix:
        raise ValueError(
            "ConvViT has no class token whose attention could guide a mask: choose a strategy without "
            "scores, a plain ViT, or method.target.kind=frozen"
        )
    mask.check_guide(body.depth)
