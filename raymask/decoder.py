"""Branches that predict targets from visible tokens: one for hidden patches, one for visible."""

from functools import partial
from typing import Any

import torch
from jaxtyping import Float, Int
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from raymask.attention import mix_tokens, project
from raymask.sincos import sincos_positions

# b: images (times views)   n: patches   k: visible patches   m: prefix ([CLS]) and k   d: encoder width
# e: decoder width   t: length of a target


class Decoder(nn.Module):
    """MAE's decoder (DMJD's invisible branch): mask tokens at hidden patches, blocks, a prediction."""

    def __init__(
        self,
        encoder_dim: int,
        target_dim: int,
        *,
        grid: tuple[int, int],
        prefix: int,
        dim: int = 512,
        depth: int = 8,
        heads: int = 16,
        mlp_ratio: float = 4.0,
    ):
        super().__init__()
        norm: Any = partial(nn.LayerNorm, eps=1e-6)  # timm asks for a class
        self.prefix = prefix
        self.embed = nn.Linear(encoder_dim, dim)
        self.mask_token = nn.Parameter(torch.randn(1, 1, dim) * 0.02)
        positions = sincos_positions(dim, grid, prefix=prefix).float()[None]
        self.pos_embed = nn.Parameter(positions, requires_grad=False)
        self.blocks = nn.ModuleList(
            Block(dim, heads, mlp_ratio, qkv_bias=True, norm_layer=norm) for _ in range(depth)
        )
        self.norm = norm(dim)
        self.pred = nn.Linear(dim, target_dim)

    def forward(self, tokens: Float[Tensor, "b m d"], visible: Int[Tensor, "b k"]) -> Float[Tensor, "b n t"]:
        """The prediction of every patch, in raster order."""
        x = self.embed(tokens)
        prefix, patches = x[:, : self.prefix], x[:, self.prefix :]
        every = self.mask_token.to(x.dtype).expand(len(x), self.pos_embed.shape[1] - self.prefix, -1)
        every = every.scatter(1, visible[:, :, None].expand_as(patches), patches)
        x = self.pos_embed + torch.cat([prefix, every], dim=1)
        layers: list[Any] = list(self.blocks)  # timm types its blocks as bare modules
        for block in layers:
            # Not block(x): on CPUs timm's fused attention takes twice as long in bfloat16 (attention.py).
            normed = block.norm1(x)
            x = x + mix_tokens(block.attn, normed, project(block.attn, normed))
            x = x + block.mlp(block.norm2(x))
        return self.pred(self.norm(x)[:, self.prefix :])


class VisibleBranch(nn.Module):
    """DMJD's visible branch: three layers on each visible token, and a linear prediction of its target."""

    def __init__(self, encoder_dim: int, target_dim: int, *, dim: int = 512):
        super().__init__()
        norm = partial(nn.LayerNorm, eps=1e-6)
        self.project = nn.Sequential(
            nn.Linear(encoder_dim, dim),
            norm(dim),
            nn.GELU(),
            nn.Linear(dim, dim),
            norm(dim),
            nn.GELU(),
            nn.Linear(dim, dim),
            norm(dim, elementwise_affine=False),
        )
        self.predict = nn.Linear(dim, target_dim)

    def forward(self, patches: Float[Tensor, "b k d"]) -> Float[Tensor, "b k t"]:
        """The prediction of each visible patch, in the order of the tokens."""
        return self.predict(self.project(patches))
