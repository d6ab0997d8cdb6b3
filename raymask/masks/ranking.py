"""Strategies rank patches: the higher the score, the earlier a patch is hidden."""

from typing import Literal

from jaxtyping import Float, Int
from torch import Tensor

from pipelines.settings import Settings
from raymask.streams import uniforms

# b: images   n: patches of an image


def random_scores(keys: Int[Tensor, " b"], patches: int) -> Float[Tensor, "b n"]:
    """Independent uniform scores, one stream an image: the highest are a uniform choice of patches."""
    return uniforms(keys, patches)


class RandomStrategy(Settings):
    """Hide patches chosen uniformly."""

    kind: Literal["random"] = "random"

    def scores(self, keys: Int[Tensor, " b"], patches: int) -> Float[Tensor, "b n"]:
        """One score a patch."""
        return random_scores(keys, patches)
