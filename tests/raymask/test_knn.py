"""Weighted k-NN: the votes, the ranks, and what happens at the edges."""

import pytest
import torch

from raymask.evaluate.knn import knn_accuracy, neighbours, unit, votes


def _clusters(count: int, *, classes: int, spread: float, seed: int):
    rng = torch.Generator().manual_seed(seed)
    centres = torch.eye(classes, 8)
    labels = torch.arange(count) % classes
    return unit(centres[labels] + spread * torch.randn(count, 8, generator=rng)), labels


def test_clear_clusters_are_always_right():
    bank, bank_labels = _clusters(60, classes=4, spread=0.01, seed=0)
    queries, labels = _clusters(12, classes=4, spread=0.01, seed=1)
    found = knn_accuracy(bank, bank_labels, queries, labels, ks=(1, 5), classes=4)
    assert found == {1: (100.0, 100.0), 5: (100.0, 100.0)}


def test_a_near_neighbour_outweighs_two_far_ones():
    tally = votes(torch.tensor([[0.9, 0.5, 0.5]]), torch.tensor([[1, 0, 0]]), classes=2, temperature=0.07)
    assert tally[0, 1] > tally[0, 0]
    tally = votes(torch.tensor([[0.9, 0.5, 0.5]]), torch.tensor([[1, 0, 0]]), classes=2, temperature=10.0)
    assert tally[0, 1] < tally[0, 0]


def test_chunks_do_not_change_the_neighbours():
    bank, _ = _clusters(50, classes=5, spread=0.5, seed=0)
    queries, _ = _clusters(23, classes=5, spread=0.5, seed=1)
    whole, parts = (neighbours(bank, queries, count=7, chunk=chunk) for chunk in (100, 4))
    assert torch.equal(whole[1], parts[1])


def test_a_k_beyond_the_bank_is_the_bank_and_named_so():
    bank, bank_labels = _clusters(6, classes=3, spread=0.1, seed=0)
    found = knn_accuracy(bank, bank_labels, bank, bank_labels, ks=(3, 10, 200), classes=3)
    assert list(found) == [3, 6]


def test_one_query_is_enough():
    bank, bank_labels = _clusters(30, classes=3, spread=0.1, seed=0)
    found = knn_accuracy(bank, bank_labels, bank[:1], bank_labels[:1], ks=(5,), classes=3)
    assert found[5][0] == 100.0


@pytest.mark.parametrize("classes", [2, 5, 9])
def test_top5_is_everything_where_there_are_at_most_five_classes(classes):
    bank, bank_labels = _clusters(90, classes=classes, spread=3.0, seed=0)
    queries, labels = _clusters(40, classes=classes, spread=3.0, seed=1)
    top1, top5 = knn_accuracy(bank, bank_labels, queries, labels, ks=(20,), classes=classes)[20]
    assert top1 < top5
    assert (top5 == 100.0) == (classes <= 5)
