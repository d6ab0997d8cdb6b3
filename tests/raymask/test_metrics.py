"""metrics.jsonl: sums on the device, exact across a resume, and lines that survive a kill."""

import json
from pathlib import Path

import numpy as np
import torch

from pipelines.batch import Batch
from raymask import metrics
from raymask.metrics import Running


def batch(step: int, signature: int, rows: int = 4) -> Batch:
    whole = torch.arange(rows)
    return Batch({}, whole, whole, whole, whole, step, rows, signature)


def values(loss: float, masks: int) -> dict:
    return {"loss": torch.tensor(loss), "masks": torch.tensor(masks), "lr": 0.1}


def test_a_line_holds_means_and_order_free_signatures():
    running = Running(torch.device("cpu"))
    big = 2**64 - 1
    running.add(values(1.0, 2**62), batch(0, big))
    running.add(values(2.0, 2**62), batch(1, 3))
    assert running.take() == ({"loss": 1.5}, {"samples": f"{2:016x}", "masks": f"{2**63:016x}"})
    assert running.take() == ({}, {"samples": "0" * 16, "masks": "0" * 16})


def test_sums_go_through_a_checkpoint_unchanged():
    rng = np.random.default_rng(0)
    whole, first = Running(torch.device("cpu")), Running(torch.device("cpu"))
    steps = [
        (values(rng.random(), int(rng.integers(2**62))), batch(i, int(rng.integers(2**63)))) for i in range(7)
    ]
    for step in steps:
        whole.add(*step)
    for step in steps[:3]:
        first.add(*step)
    second = Running(torch.device("cpu"))
    second.restore(first.tensors())
    for step in steps[3:]:
        second.add(*step)
    assert whole.take() == second.take()


def test_the_first_step_without_a_finite_loss_is_remembered():
    running = Running(torch.device("cpu"))
    assert running.broken_at() is None
    for step, loss in enumerate((1.0, float("inf"), float("nan"), 1.0)):
        running.add(values(loss, 0), batch(step, 0))
    running.take()
    assert running.broken_at() == 1


def test_a_gradient_that_is_not_finite_counts_like_such_a_loss():
    running = Running(torch.device("cpu"))
    for step, norm in enumerate((1.0, float("nan"), float("inf"))):
        running.add({**values(1.0, 0), "grad_norm": torch.tensor(norm)}, batch(step, 0))
    assert running.broken_at() == 1


def test_a_torn_last_line_is_left_out_and_later_lines_are_cut(tmp_path: Path):
    path = tmp_path / "metrics.jsonl"
    for step in (1, 2, 3):
        metrics.append(path, {"step": step, "loss": float("nan") if step == 2 else 0.5})
    with path.open("a") as file:
        file.write('{"step": 4, "lo')
    assert [line["step"] for line in metrics.read(path)] == [1, 2, 3]
    assert json.loads(path.read_text().splitlines()[1])["loss"] is None
    metrics.truncate(path, 2)
    assert [line["step"] for line in metrics.read(path)] == [1, 2] and path.read_text().endswith("\n")
    metrics.truncate(path, -1)
    assert path.read_text() == ""
