"""Attention has one meaning, whichever way it is computed."""

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from raymask.attention import attend, cls_row, products


def heads(dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(2, 3, 10, 8, generator=generator, dtype=torch.float64).to(dtype) for _ in range(3)]


def test_two_products_and_the_fused_form_are_the_same_function():
    torch.testing.assert_close(products(*heads()), scaled_dot_product_attention(*heads()), rtol=0, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_half_precision_attention_stays_within_its_rounding_even_under_autocast(dtype):
    with torch.autocast("cpu", torch.bfloat16):
        mixed = attend(*heads(dtype))
    exact = scaled_dot_product_attention(*(part.to(dtype).double() for part in heads()))
    torch.testing.assert_close(mixed.double(), exact, rtol=0, atol=0.03)


def test_scores_that_bfloat16_cannot_tell_apart_still_rank_the_patches():
    key = torch.zeros(1, 1, 64, 8, dtype=torch.bfloat16)
    key[..., 0] = torch.linspace(1, 1.1, 64)  # 14 different values in bfloat16
    query = torch.ones(1, 1, 64, 8, dtype=torch.bfloat16) * 1.01
    with torch.autocast("cpu", torch.bfloat16):
        row = cls_row(query, key, 0.35)
    assert row.dtype == torch.float32
    assert len(row.unique()) == len(key[..., 0].unique())
    assert len(row.bfloat16().unique()) < len(key[..., 0].unique())
