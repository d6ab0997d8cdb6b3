"""The two implementations of the counter-based streams are one function."""

import numpy as np
import torch

from pipelines import streams as host
from raymask.streams import Rng, uniforms


def test_torch_and_numpy_draw_the_same_numbers():
    rng = Rng(seed=7, step=3)
    epochs, samples = torch.tensor([0, 1, 40]), torch.tensor([5, 9, 2**40])
    drawn = uniforms(rng.per_sample("mask", epochs, samples, view=2), 4)
    base = host.stream(7, "mask", 2)
    for row, epoch, sample in zip(drawn, epochs.tolist(), samples.tolist()):
        key = np.uint64(host.fold(np.uint64(host.fold(base, np.uint64(epoch))), np.uint64(sample)))
        assert row.tolist() == [host.uniform(key, np.uint64(i)) for i in range(4)]


def test_draws_look_uniform_and_independent():
    keys = Rng(seed=0, step=0).per_sample("any", torch.zeros(4000, dtype=torch.int64), torch.arange(4000))
    drawn = uniforms(keys, 8).numpy()
    assert abs(drawn.mean() - 0.5) < 0.01 and abs(drawn.var() - 1 / 12) < 0.003
    correlation = np.corrcoef(drawn.T) - np.eye(8)
    assert np.abs(correlation).max() < 0.06


def test_streams_of_other_purposes_views_and_seeds_differ():
    one = torch.zeros(1, dtype=torch.int64)
    keys = [
        Rng(seed, 0).per_sample(purpose, one, one, view=view).item()
        for seed in (0, 1)
        for purpose in ("a", "b")
        for view in (0, 1)
    ]
    assert len(set(keys)) == len(keys)
