"""What is checked and changed between a config and its first step."""

import pytest
import torch
from torch import nn

from raymask.training import synchronise_batch_norm
from raymask.world import World
from tests.raymask.toy import dino

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


def norms(method: nn.Module) -> list[type]:
    return [type(layer) for layer in method.modules() if isinstance(layer, nn.modules.batchnorm._BatchNorm)]


def test_batch_norm_is_synchronised_on_both_sides_where_several_gpus_share_a_batch():
    method = dino(batch_norm=True)
    names, weights = list(method.state_dict()), list(method.student.parameters())
    synchronise_batch_norm(method, world=World(size=2), device=CUDA, batch=8, chunk=4)
    assert norms(method) == [nn.SyncBatchNorm] * 4  # two a head, student and teacher
    assert list(method.state_dict()) == names
    assert all(one is other for one, other in zip(weights, method.student.parameters(), strict=True))
    assert not any(p.requires_grad for p in method.teacher.parameters())


@pytest.mark.parametrize("chunk", [None, 8])
def test_one_process_keeps_its_batch_norm(chunk: int | None):
    method = dino(batch_norm=True)
    synchronise_batch_norm(method, world=World(), device=CPU, batch=8, chunk=chunk)
    assert norms(method) == [nn.BatchNorm1d] * 4


def test_batch_norm_of_several_processes_without_gpus_is_refused():
    with pytest.raises(ValueError, match="batch_norm=true with 2 processes needs CUDA"):
        synchronise_batch_norm(dino(batch_norm=True), world=World(size=2), device=CPU, batch=8, chunk=None)


def test_batch_norm_over_chunks_is_refused():
    with pytest.raises(ValueError, match=r"all 4 images of a process in one forward, but train.chunk=3"):
        synchronise_batch_norm(dino(batch_norm=True), world=World(size=2), device=CUDA, batch=7, chunk=3)


def test_without_batch_norm_nothing_is_asked():
    synchronise_batch_norm(dino(), world=World(size=2), device=CPU, batch=8, chunk=1)
