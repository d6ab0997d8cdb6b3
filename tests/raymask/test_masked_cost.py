"""What masking the teacher saves, counted in multiply-adds: the paper's own figures."""

import pytest
import timm
import torch
from torch.utils.flop_counter import FlopCounterMode

from raymask.teachers import look

# GMACs at (196, 144, 98, 80, 49) patches that fit the paper's published totals to 0.15 %.
PAPER = {
    "deit_small_patch16_224": (4.60, 3.33, 2.25, 1.84, 1.14),
    "deit3_base_patch16_224": (17.56, 12.82, 8.71, 7.12, 4.41),
    "cait_s24_224": (9.33, 6.71, 4.49, 3.64, 2.22),
}
KEPT = (196, 144, 98, 80, 49)


def billions(name: str, kept: int) -> float:
    """Multiply-adds of a teacher that sees `kept` patches, counted by torch on tensors without data."""
    with torch.device("meta"):
        network = timm.create_model(name).eval().requires_grad_(False)
        images, visible = torch.empty(1, 3, 224, 224), torch.empty(1, kept, dtype=torch.int64)
        counter = FlopCounterMode(display=False)
        with counter, torch.no_grad():
            look(network, images, visible=visible)
    return counter.get_total_flops() / 2e9


@pytest.mark.parametrize("name", PAPER)
def test_a_masked_teacher_costs_what_the_paper_counts_less_the_projection_of_dropped_patches(name):
    width = {"deit_small_patch16_224": 384, "deit3_base_patch16_224": 768, "cait_s24_224": 384}[name]
    for kept, published in zip(KEPT, PAPER[name]):
        never_projected = 768 * width * (196 - kept) / 1e9
        assert billions(name, kept) + never_projected == pytest.approx(
            published, abs=0.006 + 0.001 * published
        )
