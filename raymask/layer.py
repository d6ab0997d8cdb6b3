"""A transformer block: timm's, which can also be run with fewer queries and give what [CLS] attends to."""

from typing import Any, Literal

from jaxtyping import Float
from timm.models.vision_transformer import Block
from torch import Tensor

from raymask.attention import cls_row, learned_cls_row, mix_tokens, project

# b: images   t: tokens   q: of them, those that go on   h: heads   d: width of a token

Row = Literal["fixed", "learned"]


class Layer(Block):
    """timm's block under its own names, so that weights go in and out of timm unchanged.

    `run` is all that a backbone calls; where weights are shared among ranks, it is what gathers them.
    """

    def run(
        self,
        tokens: Float[Tensor, "b t d"],
        *,
        queries: int | None = None,
        row: Row | None = None,
        asking: int | None = 1,
        scale: Float[Tensor, "2 b"] | None = None,
    ) -> tuple[Float[Tensor, "b q d"], Float[Tensor, "b h t"] | None]:
        """The tokens that leave the block, and what the first token attends to, for each head, if asked for.

        queries: only the first so many tokens ask and leave
        row: that attention, without its gradient or with it, on average over the first `asking` tokens (None:
            all)
        scale: what the attention and MLP branches of each image are multiplied by (drop path)
        """
        layer: Any = self.attn  # timm types it as a bare module
        heads = project(layer, normed := self.norm1(tokens), queries=queries)
        attended = None
        if row is not None:
            attend_from = learned_cls_row if row == "learned" else cls_row
            attended = attend_from(heads[0], heads[1], layer.scale, asking=asking)
        if queries is not None:
            tokens, normed = tokens[:, :queries], normed[:, :queries]
        tokens = _add(tokens, self.ls1(mix_tokens(layer, normed, heads)), scale, 0)
        return _add(tokens, self.ls2(self.mlp(self.norm2(tokens))), scale, 1), attended


def _add(tokens: Tensor, branch: Tensor, scale: Tensor | None, which: int) -> Tensor:
    """The residual sum, the branch weighted per image for drop path."""
    if scale is None:
        return tokens + branch
    return tokens + branch * scale[which, :, None, None].to(tokens.dtype)
