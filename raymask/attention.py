"""Attention: the fused form everywhere, and the one row of it that masks need.

A full attention matrix is never kept: guidance only needs what [CLS] attends to, one query row.
"""

import torch
from jaxtyping import Float
from timm.layers import Attention
from torch import Tensor
from torch.nn.functional import linear, scaled_dot_product_attention

# b: images   t: tokens   q: of them, those that ask   h: heads   c: width of a head   d: width of a token

Queries = Float[Tensor, "b h q c"]
Heads = Float[Tensor, "b h t c"]


def attend(query: Queries, key: Heads, value: Heads) -> Queries:
    """Softmax attention, scaled by c^-0.5: the one place where its implementation is chosen.

    On CPUs the fused form is slower in bfloat16 than in float32, above all its gradient: at [16, 6, 197, 64]
    forward and gradient took 68 ms of one AMX core against 25 ms for two products around a softmax, at
    [64, 6, 37, 64] 56 against 8. In float32, and on GPUs, the fused form stays.
    """
    if query.device.type == "cpu" and query.dtype == torch.bfloat16:
        return products(query, key, value)
    return scaled_dot_product_attention(query, key, value)


def products(query: Queries, key: Heads, value: Heads) -> Queries:
    """Softmax attention as two batched products; holds all t x t weights of one block."""
    with torch.autocast(query.device.type, enabled=False):  # it would take the softmax to float32 and back
        scores = (query * query.shape[-1] ** -0.5) @ key.transpose(-2, -1)
        return scores.softmax(dim=-1) @ value


def project(
    layer: Attention, tokens: Float[Tensor, "b t d"], *, queries: int | None = None
) -> tuple[Queries, Heads, Heads]:
    """Queries, keys and values of timm's attention layer, normalised where the layer does so.

    queries: only the first so many tokens ask
    """
    if queries is None:
        query, key, value = _heads(layer.qkv(tokens), layer, of=3)
    else:
        width = layer.num_heads * layer.head_dim
        weights = layer.qkv.weight.split((width, 2 * width))
        biases = (None, None) if layer.qkv.bias is None else layer.qkv.bias.split((width, 2 * width))
        (query,) = _heads(linear(tokens[:, :queries], weights[0], biases[0]), layer, of=1)
        key, value = _heads(linear(tokens, weights[1], biases[1]), layer, of=2)
    return layer.q_norm(query), layer.k_norm(key), value


def _heads(packed: Float[Tensor, "b t width"], layer: Attention, *, of: int) -> tuple[Heads, ...]:
    """Takes apart so many of queries, keys and values, each by head."""
    return packed.unflatten(2, (of, layer.num_heads, layer.head_dim)).permute(2, 0, 3, 1, 4).unbind(0)


def mix_tokens(
    layer: Attention, tokens: Float[Tensor, "b q d"], heads: tuple[Queries, Heads, Heads]
) -> Float[Tensor, "b q d"]:
    """The output of timm's attention layer for `tokens`, whose queries are the first of `heads`, beside the
    keys and values of all."""
    mixed = layer.norm(attend(*heads).transpose(1, 2).flatten(2))
    if layer.gate is not None:
        mixed = mixed * layer.gate(tokens).sigmoid()
    return layer.proj(mixed)


@torch.no_grad()
def cls_row(query: Queries, key: Heads, scale: float, *, asking: int | None = 1) -> Float[Tensor, "b h t"]:
    """What the first `asking` tokens (None: all) attend to on average, per head: a softmax row a token, in
    float32 or better, without gradient.

    Half precision would tie neighbouring scores and so change which patches are hidden.
    """
    return learned_cls_row(query, key, scale, asking=asking)


def learned_cls_row(
    query: Queries, key: Heads, scale: float, *, asking: int | None = 1
) -> Float[Tensor, "b h t"]:
    """The same row with its gradient, for those who are to attend as another does."""
    wide = torch.promote_types(query.dtype, torch.float32)
    with torch.autocast(query.device.type, enabled=False):
        scores = (query[:, :, :asking].to(wide) * scale) @ key.to(wide).transpose(-2, -1)
        return scores.softmax(dim=-1).mean(2)
