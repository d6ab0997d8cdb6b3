"""One process is a world of its own; several add up to it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from raymask.world import World, any_across, from_environment, joined, mean_across, sum_across, sum_all_across

SCRIPT = """
import torch
from raymask.world import any_across, barrier, from_environment, joined
from raymask.world import mean_across, sum_across, sum_all_across, together

world, cpu = from_environment(), torch.device("cpu")
with joined(world, device=cpu):
    mine = torch.tensor([1.0, 2.0]) * (world.rank + 1)
    assert sum_across(mine).tolist() == [3.0, 6.0]
    assert mine.tolist() == [world.rank + 1.0, 2.0 * (world.rank + 1)]
    assert mean_across(mine).tolist() == [1.5, 3.0]
    assert mean_across(mine, weight=(0.75, 0.25)[world.rank]).tolist() == [1.25, 2.5]
    wrapped = sum_across(torch.tensor(2**62 + 2**61))
    assert wrapped.item() == (2**63 + 2**62) - 2**64, wrapped
    tensors = [torch.ones(5) * (world.rank + 1), torch.ones(2, 3, dtype=torch.float64), torch.arange(4)]
    sum_all_across(tensors, bucket=4)
    assert tensors[0].tolist() == [3.0] * 5 and tensors[1].sum() == 12 and tensors[2].tolist() == [0, 2, 4, 6]
    assert any_across(world.rank == 1, device=cpu) and not any_across(False, device=cpu)
    barrier()
    for alone, said in ((0, "only mine" if world.rank == 0 else "the first"), (None, "")):
        try:
            with together(device=cpu, otherwise="the first"):
                if world.rank == alone:
                    raise ValueError("only mine")
            assert alone is None
        except ValueError as error:
            assert str(error) == said
from pathlib import Path

Path(f"fine_{world.rank}").touch()  # what two processes print may interleave
"""


def test_without_a_group_sums_and_means_are_the_tensor_itself():
    tensor = torch.ones(3)
    assert sum_across(tensor) is tensor and mean_across(tensor) is tensor
    sum_all_across([tensor])
    assert tensor.tolist() == [1, 1, 1]
    assert any_across(True, device=tensor.device) and not any_across(False, device=tensor.device)
    with joined(World(), device=tensor.device):
        assert not torch.distributed.is_initialized()


def test_the_environment_of_torchrun_is_read(monkeypatch):
    assert from_environment() == World(0, 1, 0)
    for name, value in {"RANK": "3", "WORLD_SIZE": "8", "LOCAL_RANK": "1"}.items():
        monkeypatch.setenv(name, value)
    assert from_environment() == World(rank=3, size=8, local_rank=1) and not from_environment().leads
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="RANK=3 is not below WORLD_SIZE=2"):
        from_environment()


@pytest.mark.slow
def test_two_processes_add_up(tmp_path: Path):
    (tmp_path / "script.py").write_text(SCRIPT)
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node=2",
        "script.py",
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in tmp_path.glob("fine_*")) == ["fine_0", "fine_1"]
