"""The linear probe and the health of features."""

import pytest
import torch

from raymask.evaluate import Evaluate
from raymask.evaluate.crops import augmented
from raymask.evaluate.health import effective_rank, feature_std
from raymask.evaluate.linear import probe

QUICK = Evaluate(linear_epochs=30, linear_lr=0.5)


def _blobs(seed: int, *, count: int = 120):
    rng = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 3
    return torch.eye(3, 6)[labels] * 2 + 0.3 * torch.randn(count, 6, generator=rng), labels


def _probe(seed: int = 0, views: int = 1) -> tuple[float, float]:
    (bank, labels), (queries, truth) = _blobs(1), _blobs(2)
    return probe(bank.expand(views, -1, -1), labels, queries, truth, classes=3, settings=QUICK, seed=seed)


def test_separable_features_are_separated():
    assert _probe()[0] > 95


def test_top5_is_top3_where_there_are_three_classes():
    assert _probe()[1] == 100.0


def test_the_probe_is_a_function_of_its_seed():
    (bank, labels), (queries, truth) = _blobs(1), _blobs(2)
    noise = torch.randn(bank.shape, generator=torch.Generator().manual_seed(3)) * 3
    short = Evaluate(linear_epochs=2)

    def run(seed):
        return probe(
            (bank + noise)[None], labels, queries + noise, truth, classes=3, settings=short, seed=seed
        )

    assert run(0) == run(0)
    assert len({run(seed) for seed in range(4)}) > 1


def test_views_take_turns():
    """A second view that is noise must hurt: so it was used."""
    (bank, labels), (queries, truth) = _blobs(1), _blobs(2)
    settings = Evaluate(linear_epochs=2, linear_lr=0.05)
    wrong = bank.roll(1, 0)
    good = probe(bank[None], labels, queries, truth, classes=3, settings=settings, seed=0)
    mixed = probe(torch.stack([bank, wrong]), labels, queries, truth, classes=3, settings=settings, seed=0)
    assert good[0] > mixed[0]


def test_probe_crops_depend_on_sample_and_view_alone():
    squares = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    samples = torch.tensor([7, 3, 5])
    crops = augmented(squares, samples, size=(28, 24), seed=1, view=0)
    assert crops.shape == (3, 3, 28, 24)
    swapped = augmented(squares.flip(0), samples.flip(0), size=(28, 24), seed=1, view=0).flip(0)
    assert torch.equal(crops, swapped)
    assert not torch.equal(crops, augmented(squares, samples, size=(28, 24), seed=1, view=1))


def test_equal_features_have_no_spread_and_one_direction():
    features = torch.ones(50, 8)
    assert feature_std(features) == pytest.approx(0, abs=1e-6)
    assert effective_rank(features) == pytest.approx(1)


def test_features_all_over_the_sphere_have_full_spread_and_rank():
    features = torch.randn(20_000, 8, generator=torch.Generator().manual_seed(0))
    assert feature_std(features) == pytest.approx(1, abs=0.01)
    assert effective_rank(features) == pytest.approx(8, abs=0.01)
