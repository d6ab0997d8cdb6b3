"""Strategies rank patches: the higher the score, the earlier a patch is hidden."""

from typing import Literal

from jaxtyping import Bool, Float, Int
from torch import Tensor

from pipelines.settings import Settings
from raymask.masks.hide import hide_top
from raymask.masks.strategy import Guide
from raymask.streams import uniforms

# b: images   n: patches of an image


def random_scores(keys: Int[Tensor, " b"], patches: int) -> Float[Tensor, "b n"]:
    """Independent uniform scores, one stream an image: the highest are a uniform choice of patches."""
    return uniforms(keys, patches)


class RandomStrategy(Settings):
    """Hide patches chosen uniformly."""

    kind: Literal["random"] = "random"

    @property
    def hides_exact_counts(self) -> bool:
        return True

    def hide(self, guide: Guide) -> Bool[Tensor, "b n"]:
        """A uniform choice in each row."""
        return hide_top(random_scores(guide.keys, guide.patches), guide.counts)
