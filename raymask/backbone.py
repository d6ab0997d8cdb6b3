"""The backbone: timm's `VisionTransformer`, run so that masks, dropping and attention need no hooks.

timm owns the parameters and their names, so that weights go in and out of timm unchanged; this file owns the
order of events: embed patches, hide or drop them, add positions, run the blocks (layer.py), normalise.
"""

from typing import Any, TypedDict

import torch
from jaxtyping import Bool, Float, Int
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.nn.functional import linear

from raymask.positions import Grid, resample

# b: images   n: patches of an image   k: visible patches   t: tokens, prefix + n or k   d: width of a token


class Extras(TypedDict, total=False):
    """What a forward pass gives beside its tokens.

    cls: [CLS] of the last `last` blocks, first to last, each after the final norm, [b, d]; without a class
        token the mean patch
    attention: what [CLS] attends to among the patches, mean over heads, [b, n or k]; without gradient, unless
        asked for with it. Without a class token what all tokens attend to on average
    attention_heads: the same for each head, [b, heads, n or k]
    blocks: tokens as the blocks asked for left them, before the final norm, [b, t, d]
    """

    cls: list[Tensor]
    attention: Tensor
    attention_heads: Tensor
    blocks: list[Tensor]


class VisionBackbone(nn.Module):
    """A timm `VisionTransformer` with mask token, token dropping, drop path by argument, [CLS] attention."""

    attends = True  # whether it tells what it attends to

    def __init__(self, vit: VisionTransformer, *, drop_path: float = 0.0, mask_token: bool = False) -> None:
        super().__init__()
        self.vit = vit
        self.mask_token = nn.Parameter(torch.zeros(1, vit.embed_dim)) if mask_token else None
        self.patch_size: tuple[int, int] = vit.patch_embed.patch_size
        self.native: Grid = vit.patch_embed.grid_size
        self.prefix: int = vit.num_prefix_tokens
        self.has_cls = vit.cls_token is not None
        self.dim: int = vit.embed_dim
        # float32 as in the official code: 0.15 becomes 0.15000000596
        self.rates = torch.linspace(0, drop_path, len(vit.blocks), dtype=torch.float32).tolist()

    @property
    def depth(self) -> int:
        """Number of blocks."""
        return len(self.vit.blocks)

    def grid(self, height: int, width: int) -> Grid:
        """Rows and columns of patches of an image of this size in pixels."""
        rows, columns = self.patch_size
        if height % rows or width % columns or not height or not width:
            raise ValueError(
                f"an image of {height}x{width} pixels cannot be cut into patches of {rows}x{columns}: "
                "choose crop sizes that are multiples of backbone.patch_size"
            )
        return height // rows, width // columns

    def forward(
        self,
        images: Float[Tensor, "b 3 height width"],
        *,
        hidden: Bool[Tensor, "b n"] | None = None,
        visible: Int[Tensor, "b k"] | None = None,
        drop: Float[Tensor, "depth 2 b"] | None = None,
        attention: bool = False,
        attention_block: int = -1,
        attention_gradient: bool = False,
        attention_tokens: int = 1,
        last: int = 1,
        blocks: tuple[int, ...] = (),
        patches: bool = True,
    ) -> tuple[Float[Tensor, "b t d"], Extras]:
        """Tokens after the final norm, and what else was asked for.

        hidden: these patches are replaced by the mask token, before positions are added
        visible: only these patches are computed, each with the position of its place
        drop: uniform draws for drop path (block, attention or MLP branch, image); None drops nothing
        attention, attention_block: ask for the [CLS] attention of that block (negative: from the end);
            attention_gradient: as part of the graph; attention_tokens: on average over so many prefix tokens
        last: how many blocks' [CLS] to give; blocks: the blocks whose raw tokens to give
        patches: False where only [CLS] is wanted. The last block, whose patches then reach nobody, computes
            queries, projection and MLP of the prefix alone: the same [CLS], a twelfth of a ViT-S less work
        """
        tokens = self.embed(images, hidden=hidden, visible=visible)
        scales = None if drop is None else self._scales(drop)
        extras: Extras = {"cls": [], "blocks": []}
        layers: list[Any] = list(self.vit.blocks)  # timm types its blocks as bare modules
        for index, block in enumerate(layers):
            asks = attention and index == attention_block % self.depth
            tokens, row = block.run(
                tokens,
                queries=None if patches or index < self.depth - 1 or not self.has_cls else self.prefix,
                row=("learned" if attention_gradient else "fixed") if asks else None,
                asking=attention_tokens if self.has_cls else None,
                scale=None if scales is None or self.rates[index] == 0 else scales[index],
            )
            if row is not None:
                row = row[:, :, self.prefix :]
                extras["attention_heads"], extras["attention"] = row, row.mean(1)
            if self.depth - last <= index < self.depth - 1:
                extras["cls"].append(self.feature(self.vit.norm(tokens)))
            if index in blocks:
                extras["blocks"].append(tokens)
        tokens = self.vit.norm(tokens)
        extras["cls"].append(self.feature(tokens))
        return tokens, extras

    def feature(self, tokens: Float[Tensor, "b t d"]) -> Float[Tensor, "b d"]:
        """What stands for the image: [CLS], or without one the mean patch."""
        return tokens[:, 0] if self.has_cls else tokens[:, self.prefix :].mean(1)

    def embed(
        self,
        images: Float[Tensor, "b 3 height width"],
        *,
        hidden: Bool[Tensor, "b n"] | None = None,
        visible: Int[Tensor, "b k"] | None = None,
    ) -> Float[Tensor, "b t d"]:
        """The tokens that enter the first block."""
        patches = self._patches(images, visible)
        if hidden is not None:
            if self.mask_token is None:
                raise ValueError(
                    "this network has no mask token: build it with mask_token=True, or drop the patches"
                )
            kept = hidden if visible is None else hidden.gather(1, visible)
            patches = torch.where(kept[:, :, None], self.mask_token.to(patches.dtype), patches)
        front, positions = self.positions(self.grid(*images.shape[-2:]))
        patches = patches + (positions if visible is None else positions[visible])
        tokens = torch.cat([front.expand(len(images), -1, -1).to(patches.dtype), patches], dim=1)
        return self.vit.norm_pre(tokens)

    def _patches(self, images: Tensor, visible: Tensor | None) -> Float[Tensor, "b k d"]:
        """Embeddings of all or of the visible patches: the patch convolution as one matrix product."""
        rows, columns = self.grid(*images.shape[-2:])
        height, width = self.patch_size
        cut = images.reshape(len(images), -1, rows, height, columns, width).permute(0, 2, 4, 1, 3, 5)
        if visible is None:
            pixels = cut.flatten(3).flatten(1, 2)
        else:
            image = torch.arange(len(images), device=images.device)[:, None]
            pixels = cut[image, visible // columns, visible % columns].flatten(2)
        embed = self.vit.patch_embed
        return embed.norm(linear(pixels, embed.proj.weight.flatten(1), embed.proj.bias))

    def positions(self, grid: Grid) -> tuple[Float[Tensor, "prefix d"], Float[Tensor, "n d"]]:
        """The prefix tokens with their positions, and the positions of the patches of a grid."""
        vit = self.vit
        tokens = [getattr(vit, name, None) for name in ("cls_token", "dist_token", "reg_token")]
        assert vit.pos_embed is not None
        table = vit.pos_embed[0]
        front = torch.cat([table[:0], *(token[0] for token in tokens if token is not None)])
        own = 0 if vit.no_embed_class else self.prefix
        if own:
            front = front + table[:own]
        return front, resample(table[own:], self.native, grid)

    def _scales(self, drop: Float[Tensor, "depth 2 b"]) -> Float[Tensor, "depth 2 b"]:
        """What each branch of each image is multiplied by: 0, or 1 / (1 - rate)."""
        keep = 1 - torch.tensor(self.rates, dtype=drop.dtype, device=drop.device)[:, None, None]
        return torch.floor(keep + drop) / keep
