"""What a frozen timm network attends to among its patches: one row of the last block."""

from typing import Any

import torch
from jaxtyping import Float
from timm.layers import Attention
from torch import Tensor

from raymask.attention import cls_row, project

# b: images   t: tokens   n: patches   d: width


def attention_row(
    block: Any, tokens: Float[Tensor, "b t d"], *, prefix: int, cls: bool = True
) -> Float[Tensor, "b n"]:
    """What `block` would attend to among patches: from token 0, or without [CLS] from all on average."""
    attention = getattr(block, "attn", None)
    if not isinstance(attention, Attention):
        raise ValueError(
            f"{type(attention).__name__} gives no attention of [CLS]: choose another source of scores"
        )
    query, key, _ = project(attention, block.norm1(tokens))
    return cls_row(query, key, attention.scale, asking=1 if cls else None).mean(1)[:, prefix:]


def cait_attention(cait: Any, patches: Float[Tensor, "b n d"]) -> Float[Tensor, "b n"]:
    """From the patches that enter the class-attention blocks."""
    cls = cait.cls_token.expand(len(patches), -1, -1)
    *before, last = cait.blocks_token_only
    for block in before:
        cls = block(patches, cls)
    tokens, attention = last.norm1(torch.cat([cls, patches], dim=1)), last.attn
    query = attention.q(tokens[:, :1]).unflatten(2, (attention.num_heads, -1)).transpose(1, 2)
    key = attention.k(tokens).unflatten(2, (attention.num_heads, -1)).transpose(1, 2)
    wide = torch.promote_types(query.dtype, torch.float32)
    with torch.autocast(patches.device.type, enabled=False):
        weights = torch.softmax((query.to(wide) * attention.scale) @ key.to(wide).mT, dim=-1)
    return weights.mean((1, 2))[:, 1:]
