"""Frozen networks that teach or choose: logits and tokens of only some patches, and the attention of [CLS].

The networks are plain timm models. What is dropped is dropped: a kept patch keeps the position of its
original place, the rest never enters a block. A convolutional network cannot drop patches; it may teach only
without a mask.
"""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from timm.layers import PatchEmbed
from timm.models.cait import Cait
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.nn import functional

from raymask.frozen_attention import attention_row, cait_attention

# b: images   h, w: pixels   n: patches   kept: patches that stay   c: classes   d: width   t: tokens of a
# block

MASKABLE = (
    "any timm VisionTransformer (ViT, DeiT with or without distillation token, DeiT III, CLIP) and CaiT"
)


@dataclass(frozen=True)
class Seen:
    """What a network makes of the patches it sees: logits, its patch tokens after the asked blocks, and what
    [CLS] of the last block attends to among them, where asked for."""

    logits: Float[Tensor, "b c"]
    tokens: tuple[Float[Tensor, "b kept d"], ...] = ()
    attention: Float[Tensor, "b kept"] | None = None


class Frozen(nn.Module):
    """A network that is never trained: always in evaluation mode, without gradients."""

    factor: Float[Tensor, "3 1 1"]
    offset: Float[Tensor, "3 1 1"]

    def __init__(
        self,
        network: nn.Module,
        *,
        image_size: tuple[int, int] | None = None,
        colours: tuple[Float[Tensor, "3 1 1"], Float[Tensor, "3 1 1"]] | None = None,
    ) -> None:
        """`image_size`, `colours` (factor, offset): what images become before this network sees them."""
        super().__init__()
        self.network: Any = network.eval().requires_grad_(False)
        self.image_size = image_size
        self.recolours = colours is not None
        for name, value in zip(("factor", "offset"), colours or (torch.ones(3, 1, 1), torch.zeros(3, 1, 1))):
            self.register_buffer(name, value, persistent=False)

    def train(self, mode: bool = True) -> "Frozen":
        """Stays in evaluation mode: drop path and dropout are for those who learn."""
        return super().train(False)

    @property
    def backbone(self) -> nn.Module:
        """What runs, for those who compile it."""
        return self.network

    def grid(self, images: Float[Tensor, "b 3 h w"]) -> tuple[int, int]:
        """Rows and columns of patches that this network cuts these images into."""
        require_maskable(self.network)
        return self.network.patch_embed.dynamic_feat_size(self.image_size or tuple(images.shape[-2:]))

    @torch.no_grad()
    def forward(
        self,
        images: Float[Tensor, "b 3 h w"],
        visible: Int[Tensor, "b kept"] | None = None,
        *,
        layers: tuple[int, ...] = (),
        attention: bool = False,
    ) -> Seen:
        """What the network makes of the `visible` patches (None: of all of them)."""
        return look(self.network, self._fitted(images), visible=visible, layers=layers, attention=attention)

    @torch.no_grad()
    def scores(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b n"]:
        """What [CLS] of the last block attends to, over the patches of this network's own grid."""
        return cls_attention(self.network, self._fitted(images))

    def _fitted(self, images: Tensor) -> Tensor:
        images = images * self.factor + self.offset if self.recolours else images
        if self.image_size is None or tuple(images.shape[-2:]) == self.image_size:
            return images
        return functional.interpolate(images, size=self.image_size, mode="bicubic", antialias=True)


def look(
    network: nn.Module,
    images: Float[Tensor, "b 3 h w"],
    *,
    visible: Int[Tensor, "b kept"] | None = None,
    layers: tuple[int, ...] = (),
    attention: bool = False,
) -> Seen:
    """Logits of `network` from the `visible` patches, its patch tokens after `layers`, and its attention.

    The order of places within a row changes nothing but rounding. A distilled network averages its two heads.
    """
    if visible is None and not layers and not attention:
        return Seen(network(images))
    require_maskable(network)
    check_layers(network, layers)
    if isinstance(network, Cait):
        return _look_through_cait(network, images, visible=visible, layers=layers, attention=attention)
    assert isinstance(network, VisionTransformer)
    return _look_through_vit(network, images, visible=visible, layers=layers, attention=attention)


def is_maskable(network: nn.Module) -> bool:
    """Whether `network` can leave patches out."""
    return isinstance(network, VisionTransformer | Cait)


def require_maskable(network: nn.Module, *, otherwise: str | None = None) -> None:
    """Raises ValueError for a network without patch tokens, naming those that have them.

    otherwise: what else may be done where this network is asked for, to end the sentence
    """
    if not is_maskable(network):
        raise ValueError(
            f"a frozen {type(network).__name__} has no tokens of patches and no attention of [CLS]: choose "
            f"{MASKABLE}" + (f", or {otherwise}" if otherwise else "")
        )


def check_layers(network: nn.Module, layers: tuple[int, ...]) -> None:
    """Raises ValueError for blocks that `network` does not have."""
    blocks: Any = network.blocks
    depth = len(blocks)
    if any(not 0 <= layer < depth for layer in layers):
        raise ValueError(
            f"asked for the tokens of blocks {list(layers)}, but the network has blocks 0 to {depth - 1}"
        )


def _look_through_vit(
    vit: VisionTransformer,
    images: Tensor,
    *,
    visible: Tensor | None,
    layers: tuple[int, ...],
    attention: bool,
) -> Seen:
    tokens = vit.norm_pre(embed(vit, images, visible=visible))
    before = vit.blocks[:-1]
    depth, prefix = len(before), vit.num_prefix_tokens
    tokens, kept = _through(before, tokens, layers=layers, prefix=prefix)
    row = attention_row(vit.blocks[-1], tokens, prefix=prefix, cls=vit.has_class_token) if attention else None
    tokens = vit.blocks[-1](tokens)
    kept |= {depth: tokens[:, prefix:]}
    return Seen(vit.forward_head(vit.norm(tokens)), tuple(kept[layer] for layer in layers), row)


def _look_through_cait(
    cait: Cait, images: Tensor, *, visible: Tensor | None, layers: tuple[int, ...], attention: bool
) -> Seen:
    patches = cait.pos_drop(
        _embed_patches(cait.patch_embed, images, visible) + _rows(cait.pos_embed, visible)
    )
    patches, kept = _through(cait.blocks, patches, layers=layers, prefix=0)
    # [CLS] joins only now, in the class-attention blocks.
    row = cait_attention(cait, patches) if attention else None
    logits = cait.forward_head(cait.norm(cait.forward_cls(patches)))
    return Seen(logits, tuple(kept[layer] for layer in layers), row)


def _through(
    blocks: nn.Sequential, tokens: Tensor, *, layers: tuple[int, ...], prefix: int
) -> tuple[Tensor, dict[int, Tensor]]:
    """The tokens that leave the blocks, and those of patches that left each of `layers`."""
    kept = {}
    for number, block in enumerate(blocks):
        tokens = block(tokens)
        if number in layers:
            kept[number] = tokens[:, prefix:]
    return tokens, kept


def embed(
    vit: VisionTransformer, images: Float[Tensor, "b 3 h w"], *, visible: Int[Tensor, "b kept"] | None = None
) -> Float[Tensor, "b t d"]:
    """The tokens that enter the blocks: all prefix tokens, then the visible patches where they belong."""
    patches = _embed_patches(vit.patch_embed, images, visible)
    # timm's own rule for prefix tokens and positions, of every family, read off an image of zero embeddings.
    grid = vit.patch_embed.dynamic_feat_size(tuple(images.shape[-2:]))
    shape = (1, *grid, vit.embed_dim) if vit.dynamic_img_size else (1, grid[0] * grid[1], vit.embed_dim)
    table = vit._pos_embed(patches.new_zeros(shape, dtype=vit.patch_embed.proj.weight.dtype))
    prefix = table[:, : vit.num_prefix_tokens].expand(len(images), -1, -1)
    return torch.cat([prefix, patches + _rows(table[:, vit.num_prefix_tokens :], visible)], dim=1)


def _embed_patches(stem: nn.Module, images: Tensor, visible: Tensor | None) -> Float[Tensor, "b kept d"]:
    """Patch embeddings without positions. The plain projection is applied to the visible patches only."""
    if visible is None or type(stem) is not PatchEmbed or stem.dynamic_img_pad:
        patches = stem(images)
        patches = patches.flatten(1, 2) if patches.ndim == 4 else patches
        return patches if visible is None else _gather(patches, visible)
    weight = stem.proj.weight
    pixels = _gather(patchify(images, stem.patch_size), visible)
    return stem.norm(functional.linear(pixels, weight.flatten(1), stem.proj.bias))


def patchify(images: Float[Tensor, "b 3 h w"], size: tuple[int, int]) -> Float[Tensor, "b n pixels"]:
    """The pixels of each patch as (channel, row, column), row-major over the grid; rests are cut off."""
    rows, columns = images.shape[-2] // size[0], images.shape[-1] // size[1]
    cut = (
        images[..., : rows * size[0], : columns * size[1]]
        .unflatten(3, (columns, size[1]))
        .unflatten(2, (rows, size[0]))
    )
    return cut.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)


def _gather(patches: Float[Tensor, "b n d"], visible: Int[Tensor, "b kept"]) -> Float[Tensor, "b kept d"]:
    return patches.gather(1, visible[:, :, None].expand(-1, -1, patches.shape[2]))


def _rows(table: Float[Tensor, "1 n d"], visible: Int[Tensor, "b kept"] | None) -> Float[Tensor, "#b kept d"]:
    return table if visible is None else table[0][visible]


@torch.no_grad()
def cls_attention(network: nn.Module, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b n"]:
    """Head-mean attention of [CLS] to the patches in the last block, at least float32, from one query row.

    In CaiT this is the last class-attention block. A ViT without [CLS] gives the mean over all queries
    instead.
    """
    require_maskable(network)
    if isinstance(network, Cait):
        patches = _embed_patches(network.patch_embed, images, None) + network.pos_embed
        return cait_attention(network, network.blocks(patches))
    assert isinstance(network, VisionTransformer)
    tokens = network.blocks[:-1](network.norm_pre(embed(network, images)))
    prefix, cls = network.num_prefix_tokens, network.has_class_token
    return attention_row(network.blocks[-1], tokens, prefix=prefix, cls=cls)
