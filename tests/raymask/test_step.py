"""One training step: the same for chunks, ranks and precisions."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as multiprocessing
from torch.nn.parallel import DistributedDataParallel

from pipelines.batch import Batch
from raymask.masks import Mask
from raymask.methods.method import Method
from raymask.optim import Optim
from raymask.step import train_step
from raymask.streams import Rng
from tests.raymask.toy import batch, dino, progress

OPTIM = Optim(base_lr=0.5, clip=0.3, freeze_last_layer=1)


def masked() -> Method:
    return dino(Mask(views="student", ratio=0.4), drop_path=0.3)


def train(
    method: Method, *, steps: int = 3, chunk: int | None = None, share: slice = slice(None)
) -> list[dict]:
    """Some steps across the end of the frozen epoch, each on this share of its batch."""
    bare = method.module if isinstance(method, DistributedDataParallel) else method
    optimiser = OPTIM.build(bare.student)
    reports = []
    for step in range(1, 1 + steps):
        whole = batch(5, step=step)
        part = whole if share == slice(None) else take(whole, share)
        reports.append(
            train_step(
                method, part, progress(step), Rng(0, step), optimiser=optimiser, optim=OPTIM, chunk=chunk
            )
        )
    return reports


def take(whole: Batch, share: slice) -> Batch:
    """The images of one rank."""
    return replace(
        whole,
        crops={name: crops[:, share] for name, crops in whole.crops.items()},
        **{name: getattr(whole, name)[share] for name in ("labels", "samples", "epochs", "positions")},
    )


def differences(one: Method, other: Method) -> float:
    theirs = other.state_dict()
    return max((tensor - theirs[name]).abs().max().item() for name, tensor in one.state_dict().items())


@pytest.mark.parametrize("chunk", [1, 2, 3])
def test_chunks_add_up_to_the_whole_step(chunk):
    whole, parts = masked(), masked()
    expected, got = train(whole), train(parts, chunk=chunk)
    assert differences(whole, parts) < 1e-10
    for one, other in zip(expected, got):
        # The spread of the teacher is the one report that is no mean over images.
        for name in one.keys() - {"teacher_spread"}:
            assert float(one[name]) == pytest.approx(float(other[name]), abs=1e-10), name
        assert one["masks"].item() == other["masks"].item()


def test_a_step_reports_on_the_device_and_its_rates_as_numbers():
    (report,) = train(masked(), steps=1)
    rates = {name for name, value in report.items() if isinstance(value, float)}
    assert rates == {"lr", "wd", "momentum", "student_temperature", "teacher_temperature", "guidance"}
    assert all(
        torch.is_tensor(report[n]) for n in ("loss", "grad_norm", "mask_ratio", "masks", "teacher_entropy")
    )


def test_the_prototypes_move_only_after_their_frozen_epoch():
    method = masked()
    before = method.student.head.last_layer.direction.detach().clone()
    train(method, steps=1)
    assert torch.equal(method.student.head.last_layer.direction, before)
    train(method, steps=3)
    assert not torch.equal(method.student.head.last_layer.direction, before)


def test_bfloat16_trains_near_float32():
    exact, narrow = masked().float(), masked().float()
    losses = []
    for method, dtype in ((exact, None), (narrow, torch.bfloat16)):
        optimiser = OPTIM.build(method.student)
        noise = batch(5, dtype=torch.float32)
        report = train_step(
            method, noise, progress(), Rng(0, 0), optimiser=optimiser, optim=OPTIM, dtype=dtype
        )
        losses.append(report["loss"].item())
    assert losses[0] == pytest.approx(losses[1], rel=0.05)
    assert all(p.dtype == torch.float32 for p in narrow.parameters())


def test_a_step_never_asks_the_device_for_a_value(monkeypatch):
    method = masked()
    optimiser = OPTIM.build(method.student)
    noise = batch()

    def refuse(*_: object) -> None:
        raise AssertionError("the host waited for the device")

    for name in ("item", "tolist", "__bool__", "__float__", "__int__", "__index__", "numpy"):
        monkeypatch.setattr(torch.Tensor, name, refuse)
    train_step(method, noise, progress(), Rng(0, 0), optimiser=optimiser, optim=OPTIM, chunk=2)


def _rank(rank: int, folder: str, shares: list[slice]) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=len(shares))
    try:
        method = masked()
        wrapped = DistributedDataParallel(method, broadcast_buffers=False)
        reports = train(wrapped, chunk=2, share=shares[rank])
        plain = [{k: v if isinstance(v, float) else v.cpu() for k, v in r.items()} for r in reports]
        torch.save({"state": method.state_dict(), "reports": plain}, Path(folder) / f"{rank}.pt")
    finally:
        dist.destroy_process_group()


@pytest.mark.slow
def test_two_ranks_with_unequal_shares_train_as_one_process(tmp_path):
    alone = masked()
    expected = train(alone)
    shares = [slice(0, 5, 2), slice(1, 5, 2)]
    multiprocessing.spawn(_rank, args=(str(tmp_path), shares), nprocs=2)
    ranks = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2)]
    for name, tensor in alone.state_dict().items():
        for found in ranks:
            assert (found["state"][name] - tensor).abs().max() < 1e-10, name
    for step, report in enumerate(expected):
        both = [found["reports"][step] for found in ranks]
        assert (both[0]["loss"] + both[1]["loss"]).item() / 2 == pytest.approx(
            report["loss"].item(), abs=1e-10
        )
        assert sum(r["masks"].item() for r in both) % 2**64 == report["masks"].item() % 2**64
        assert both[0]["grad_norm"].item() == pytest.approx(report["grad_norm"].item(), abs=1e-9)
