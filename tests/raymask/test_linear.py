"""The linear probe and the health of features."""

import pytest
import torch

from raymask.evaluate import Evaluate
from raymask.evaluate.crops import augmented
from raymask.evaluate.health import effective_rank, feature_std
from raymask.evaluate.lars import Lars
from raymask.evaluate.linear import fit_of, probe

QUICK = {
    "dino": Evaluate(linear_epochs=30, linear_lr=0.5),
    "mae": Evaluate(linear_recipe="mae", linear_epochs=30, linear_lr=100.0),
}


def _blobs(seed: int, *, count: int = 120):
    rng = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 3
    return torch.eye(3, 6)[labels] * 2 + 0.3 * torch.randn(count, 6, generator=rng), labels


def _probe(recipe: str = "dino", *, seed: int = 0, views: int = 1) -> tuple[float, float]:
    (bank, labels), (queries, truth) = _blobs(1), _blobs(2)
    settings = QUICK[recipe]
    return probe(bank.expand(views, -1, -1), labels, queries, truth, classes=3, settings=settings, seed=seed)


@pytest.mark.parametrize("recipe", QUICK)
def test_separable_features_are_separated(recipe):
    assert _probe(recipe)[0] > 95


def test_a_recipe_brings_its_own_numbers_and_the_batch_stays_below_a_sixteenth_of_the_bank():
    for recipe, expected in (("dino", (100, 0.001, 1024)), ("mae", (90, 0.1, 4096))):
        assert fit_of(Evaluate(linear_recipe=recipe), images=100_000) == expected
    given = {"linear_epochs": 5, "linear_lr": 0.3, "linear_batch": 64}
    for recipe, images, batch in (("dino", 160, 10), ("dino", 8, 1), ("mae", 160, 32), ("mae", 24, 24)):
        found = fit_of(Evaluate(linear_recipe=recipe, **given), images=images)
        assert found == (5, 0.3, batch)
    assert fit_of(Evaluate(linear_recipe="mae", **given), images=9600).batch == 64


def test_maes_probe_learns_from_a_bank_that_is_hardly_a_batch():
    (bank, labels), (queries, truth) = _blobs(1, count=21), _blobs(2)
    settings = Evaluate(linear_recipe="mae", linear_lr=100.0)
    top1, _ = probe(bank[None], labels, queries, truth, classes=3, settings=settings, seed=0)
    assert top1 > 90


def test_scale_and_shift_of_features_mean_nothing_to_maes_probe():
    (bank, labels), (queries, truth) = _blobs(1), _blobs(2)
    settings = Evaluate(linear_recipe="mae", linear_epochs=30, linear_lr=20.0)
    results = [
        probe(
            (bank * scale + 7 * (scale - 1))[None],
            labels,
            queries * scale + 7 * (scale - 1),
            truth,
            classes=3,
            settings=settings,
            seed=0,
        )[0]
        for scale in (1.0, 100.0)
    ]
    assert results[0] == pytest.approx(results[1], abs=2.0) and results[0] > 60


def test_a_step_of_lars_on_a_matrix_is_a_thousandth_of_its_length():
    draw = torch.Generator().manual_seed(0)
    matrix, bias = (torch.nn.Parameter(torch.randn(shape, generator=draw)) for shape in ((3, 4), (3,)))
    before = [matrix.detach().clone(), bias.detach().clone()]
    gradients = [torch.randn(p.shape, generator=draw) for p in (matrix, bias)]
    optimiser, moved = Lars([matrix, bias]), [torch.zeros(3, 4), torch.zeros(3)]
    for rate in (0.5, 2.0):
        for parameter, gradient in zip((matrix, bias), gradients):
            parameter.grad = gradient.clone()
        trust = 1e-3 * before[0].norm() / gradients[0].norm()
        moved = [0.9 * moved[0] + trust * gradients[0], 0.9 * moved[1] + gradients[1]]
        optimiser.step(rate)
        before = [value - rate * step for value, step in zip(before, moved)]
        assert torch.allclose(matrix, before[0]) and torch.allclose(bias, before[1])


def test_lars_does_not_scale_what_is_zero():
    matrix = torch.nn.Parameter(torch.zeros(2, 2))
    matrix.grad = torch.ones(2, 2)
    Lars([matrix]).step(0.1)
    assert torch.equal(matrix.detach(), torch.full((2, 2), -0.1))


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
