"""k-NN from a few images a class."""

import pytest
import torch

from raymask.evaluate.knn import knn_accuracy, unit
from raymask.evaluate.low_shot import STARTS, chosen_rows, low_shot


def blobs(count: int, seed: int = 0):
    draw = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 3
    return unit(torch.eye(3, 6)[labels] + 0.8 * torch.randn(count, 6, generator=draw)), labels


def test_the_five_choices_start_where_the_released_code_does():
    assert STARTS == {
        1: (0, 5, 10, 15, 20),
        5: (0, 5, 10, 15, 20),
        10: (0, 10, 20, 30, 40),
        20: (0, 20, 40, 60, 80),
    }


def test_a_choice_is_a_run_of_images_of_every_class():
    labels = torch.tensor([0, 1, 1, 0, 0, 1, 0, 1])
    assert chosen_rows(labels, classes=2, start=1, shots=2).tolist() == [3, 4, 2, 5]


@pytest.mark.parametrize(("shots", "k"), [(1, 1), (5, 15), (10, 20), (20, 20)])
def test_the_accuracy_is_the_mean_over_five_small_banks(shots, k):
    (bank, labels), (queries, truth) = blobs(300), blobs(90, seed=1)
    tops = []
    for start in STARTS[shots]:
        rows = [i for c in range(3) for i in range(c, 300, 3)[start : start + shots]]
        found = knn_accuracy(bank[rows], labels[rows], queries, truth, ks=(k,), classes=3)
        tops.append(found[k][0])
    got = low_shot(bank, labels, queries, truth, classes=3, temperature=0.07)
    assert got[shots] == pytest.approx(sum(tops) / 5)


def test_choices_for_which_a_class_is_too_small_are_left_out():
    bank, labels = blobs(3 * 12)
    found = low_shot(bank, labels, *blobs(30, seed=1), classes=3, temperature=0.07)
    assert set(found) == {1, 5, 10}
