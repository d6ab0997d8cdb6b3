"""ConvViT: two convolutional stages and a ViT, computed on visible patches only (ConvMAE, arXiv:2205.03892).

A convolution block is pointwise but for one depthwise 5 x 5 convolution, and that one reads zeros where a
patch is hidden. What a visible patch gives therefore never depends on the residual stream of a hidden one,
which the released code computes nevertheless. Here tokens stay packed by patch, [b, k, positions of one
patch, channels]; they are laid out on the image's map, with zeros between them, for the depthwise convolution
alone. Values and gradients are the dense ones; a whole image is the case in which all patches are visible.
Parameters carry the released names.
"""

from functools import partial
from math import prod
from typing import Any

import torch
from jaxtyping import Float, Int
from timm.models.vision_transformer import Block
from torch import Tensor, nn
from torch.nn import functional as F

from raymask.sincos import resized, sincos_positions

# b: images   n: patches of an image   k: visible patches   s: positions of a patch at one stage
# c, d: channels   h, w: pixels

Packed = Float[Tensor, "b k s c"]
Merged = Float[Tensor, "b k positions channels"]


class ConvEmbed(nn.Module):
    """A convolution whose stride is its size, layer norm, GELU: here a linear map of merged positions."""

    def __init__(self, channels: int, dim: int, size: int):
        super().__init__()
        self.proj = nn.Conv2d(channels, dim, size, stride=size)
        self.norm = nn.LayerNorm(dim, eps=1e-5)

    def forward(self, x: Packed) -> Merged:
        return F.gelu(self.norm(strided(self.proj, x)))


class ConvMlp(nn.Module):
    """The feed-forward half of a convolution block: 1 x 1 convolutions, as linear maps of packed tokens."""

    def __init__(self, dim: int, hidden: int):
        super().__init__()
        self.fc1 = nn.Conv2d(dim, hidden, 1)
        self.fc2 = nn.Conv2d(hidden, dim, 1)

    def forward(self, x: Packed) -> Packed:
        return strided(self.fc2, F.gelu(strided(self.fc1, x)))


class ConvBlock(nn.Module):
    """x += conv1x1(depthwise5x5(visible * conv1x1(norm x))); x += mlp(norm x)."""

    def __init__(self, dim: int, mlp_ratio: float):
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=1e-5)
        self.conv1 = nn.Conv2d(dim, dim, 1)
        self.conv2 = nn.Conv2d(dim, dim, 1)
        self.attn = nn.Conv2d(dim, dim, 5, padding=2, groups=dim)
        self.norm2 = nn.LayerNorm(dim, eps=1e-5)
        self.mlp = ConvMlp(dim, int(dim * mlp_ratio))

    def forward(self, x: Packed, places: Int[Tensor, "b k s"], size: tuple[int, int]) -> Packed:
        x = x + strided(self.conv2, self._mix(strided(self.conv1, self.norm1(x)), places, size))
        return x + self.mlp(self.norm2(x))

    def _mix(self, x: Packed, places: Int[Tensor, "b k s"], size: tuple[int, int]) -> Packed:
        """The depthwise convolution on the image's map, where hidden patches are zero."""
        rows, channels = places.flatten(), x.shape[-1]
        spread = x.new_zeros(len(x) * prod(size), channels).index_copy(0, rows, x.reshape(-1, channels))
        mixed = self.attn(spread.view(len(x), *size, channels).permute(0, 3, 1, 2))
        return mixed.permute(0, 2, 3, 1).reshape(-1, channels).index_select(0, rows).view(x.shape)


class ConvViT(nn.Module):
    """The encoder of visible patches; it has no class token."""

    def __init__(
        self,
        *,
        image_size: tuple[int, int],
        dims: tuple[int, int, int],
        depths: tuple[int, int, int],
        heads: int,
        mlp_ratios: tuple[float, float, float],
        strides: tuple[int, int, int] = (4, 2, 2),
    ):
        super().__init__()
        self.strides, self.dim = strides, dims[2]
        self.patch_size = (prod(strides),) * 2
        self.native = self.grid(*image_size)
        self.patch_embed1 = ConvEmbed(3, dims[0], strides[0])
        self.patch_embed2 = ConvEmbed(dims[0], dims[1], strides[1])
        self.patch_embed3 = ConvEmbed(dims[1], dims[2], strides[2])
        self.patch_embed4 = nn.Linear(dims[2], dims[2])
        self.stage1_output_decode = nn.Conv2d(
            dims[0], dims[2], strides[1] * strides[2], stride=strides[1] * strides[2]
        )
        self.stage2_output_decode = nn.Conv2d(dims[1], dims[2], strides[2], stride=strides[2])
        norm: Any = partial(nn.LayerNorm, eps=1e-6)  # timm asks for a class
        self.blocks1 = nn.ModuleList(ConvBlock(dims[0], mlp_ratios[0]) for _ in range(depths[0]))
        self.blocks2 = nn.ModuleList(ConvBlock(dims[1], mlp_ratios[1]) for _ in range(depths[1]))
        self.blocks3 = nn.ModuleList(
            Block(dims[2], heads, mlp_ratios[2], qkv_bias=True, norm_layer=norm) for _ in range(depths[2])
        )
        self.norm = norm(dims[2])
        positions = sincos_positions(dims[2], self.native).float()[None]
        self.pos_embed = nn.Parameter(positions, requires_grad=False)

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of patches of an image."""
        size = self.patch_size[0]
        if height % size or width % size:
            raise ValueError(
                f"ConvViT's stride of {size} does not divide an image of {height}x{width} pixels"
            )
        return height // size, width // size

    def forward(
        self, images: Float[Tensor, "b 3 h w"], *, visible: Int[Tensor, "b k"] | None = None
    ) -> Float[Tensor, "b k d"]:
        """The tokens of the visible patches (None: of all, in raster order), with both stages fused in."""
        tokens, fused = self.stages(images, visible=visible)
        return self.norm(tokens + fused)

    def stages(
        self, images: Float[Tensor, "b 3 h w"], *, visible: Int[Tensor, "b k"] | None = None
    ) -> tuple[Float[Tensor, "b k d"], Float[Tensor, "b k d"]]:
        """What leaves the last block, and what of both convolution stages is fused with it."""
        grid = self.grid(*images.shape[-2:])
        if visible is None:
            visible = torch.arange(prod(grid), device=images.device).expand(len(images), -1)
        x = self.patch_embed1(cut(images, visible, grid))
        sides = (self.strides[1] * self.strides[2], self.strides[2])
        x = self._stage(self.blocks1, x, visible, grid, sides[0])
        fused = strided(self.stage1_output_decode, x)
        x = self._stage(self.blocks2, self.patch_embed2(x), visible, grid, sides[1])
        fused = fused + strided(self.stage2_output_decode, x)
        x = self.patch_embed4(self.patch_embed3(x)).squeeze(2)
        x = x + resized(self.pos_embed[0], self.native, grid)[visible].to(x)
        for block in self.blocks3:
            x = block(x)
        return x, fused.squeeze(2)

    def _stage(
        self, blocks: nn.ModuleList, x: Packed, visible: Int[Tensor, "b k"], grid: tuple[int, int], side: int
    ):
        places = map_places(visible, grid, side)
        for block in blocks:
            x = block(x, places, (grid[0] * side, grid[1] * side))
        return x


def strided(conv: nn.Conv2d, x: Packed) -> Merged:
    """A convolution whose stride is its size, on packed tokens whose positions it merges."""
    return F.linear(merged(x, conv.kernel_size[0]), conv.weight.flatten(1), conv.bias)


def merged(x: Packed, size: int) -> Merged:
    """Squares of `size` positions of a patch as one, channels first: the order of a convolution's weight."""
    if size == 1:
        return x
    b, k, s, c = x.shape
    side = int(s**0.5)
    x = x.view(b, k, side // size, size, side // size, size, c)
    return x.permute(0, 1, 2, 4, 6, 3, 5).reshape(b, k, (side // size) ** 2, c * size * size)


def cut(images: Float[Tensor, "b c h w"], visible: Int[Tensor, "b k"], grid: tuple[int, int]) -> Packed:
    """The pixels of the visible patches: s = pixels of a patch, in raster order."""
    b, c, h, w = images.shape
    size = h // grid[0], w // grid[1]
    patches = images.view(b, c, grid[0], size[0], grid[1], size[1]).permute(0, 2, 4, 3, 5, 1)
    rows = torch.arange(b, device=images.device)[:, None]
    return patches[rows, visible // grid[1], visible % grid[1]].reshape(b, visible.shape[1], prod(size), c)


def map_places(visible: Int[Tensor, "b k"], grid: tuple[int, int], side: int) -> Int[Tensor, "b k s"]:
    """Where each position of the visible patches lies in the flattened maps [b, rows, columns] of a stage."""
    steps = torch.arange(side, device=visible.device)
    width = grid[1] * side
    inside = (steps[:, None] * width + steps).flatten()
    corner = visible // grid[1] * side * width + visible % grid[1] * side
    image = torch.arange(len(visible), device=visible.device)[:, None] * (grid[0] * side * width)
    return (image + corner)[:, :, None] + inside
