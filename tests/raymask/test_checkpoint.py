"""Checkpoints: whole or not there at all, strict, and free of pickles."""

import errno
from pathlib import Path

import pytest
import torch
from torch import nn

from raymask import checkpoint, state


def fill(folder: Path) -> None:
    (folder / "state.json").write_text("{}")


def test_a_checkpoint_is_complete_and_last_names_it(tmp_path: Path):
    for step in (5, 10):
        checkpoint.write(tmp_path, step, save=fill, keep=3)
    assert [path.name for path in checkpoint.steps(tmp_path)] == ["step_00000005", "step_00000010"]
    assert checkpoint.latest(tmp_path) == tmp_path / "step_00000010"


def test_only_the_newest_stay(tmp_path: Path):
    for step in range(1, 6):
        checkpoint.write(tmp_path, step, save=fill, keep=2)
    assert [path.name for path in checkpoint.steps(tmp_path)] == ["step_00000004", "step_00000005"]


def test_a_full_disk_leaves_nothing_half_written_and_the_former_checkpoint_in_place(tmp_path: Path):
    checkpoint.write(tmp_path, 5, save=fill, keep=1)

    def fails(folder: Path) -> None:
        fill(folder)
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        checkpoint.write(tmp_path, 10, save=fails, keep=1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["last", "step_00000005"]
    assert checkpoint.latest(tmp_path) == tmp_path / "step_00000005"


def test_what_a_kill_left_is_cleaned_away(tmp_path: Path):
    checkpoint.write(tmp_path, 5, save=fill, keep=2)
    torn = tmp_path / ".writing_step_00000010"
    torn.mkdir()
    (torn / "model.safetensors").write_bytes(b"half")
    (tmp_path / ".last").write_text("step_0000")
    renamed = tmp_path / "step_00000015"  # killed between the rename and the pointer
    renamed.mkdir()
    fill(renamed)
    assert sorted(checkpoint.clean(tmp_path)) == [".last", torn.name, renamed.name]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["last", "step_00000005"]


def test_a_kill_while_an_old_checkpoint_is_removed_leaves_no_half_of_one_under_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    class Killed(BaseException):
        pass

    def removes_half(path: Path, ignore_errors: bool = False) -> None:
        if path.exists():
            (path / "model.safetensors").unlink()
            raise Killed

    def fill_two(folder: Path) -> None:
        fill(folder)
        (folder / "model.safetensors").write_bytes(b"whole")

    checkpoint.write(tmp_path, 5, save=fill_two, keep=1)
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(checkpoint.shutil, "rmtree", removes_half)
        checkpoint.write(tmp_path, 10, save=fill_two, keep=1)
    assert {path.name for path in tmp_path.glob("step_*")} == {"step_00000010"}
    checkpoint.clean(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["last", "step_00000010"]


def test_a_directory_without_state_is_no_checkpoint_and_is_cleaned_away(tmp_path: Path):
    checkpoint.write(tmp_path, 5, save=fill, keep=1)
    (tmp_path / "last").unlink()
    half = tmp_path / "step_00000010"
    half.mkdir()
    assert checkpoint.latest(tmp_path) == tmp_path / "step_00000005"
    assert checkpoint.clean(tmp_path) == [half.name] and not half.exists()


def test_without_a_pointer_the_newest_counts_and_without_any_there_is_none(tmp_path: Path):
    assert checkpoint.latest(tmp_path) is None and checkpoint.clean(tmp_path) == []
    checkpoint.write(tmp_path, 5, save=fill, keep=2)
    (tmp_path / "last").unlink()
    assert checkpoint.latest(tmp_path) == tmp_path / "step_00000005"


class Pair(nn.Module):
    """A student, a teacher and a center, as small as can be."""

    def __init__(self, width: int = 3) -> None:
        super().__init__()
        torch.manual_seed(width)
        self.student = nn.Linear(width, 2)
        self.teacher = nn.Linear(width, 2).requires_grad_(False)
        self.register_buffer("center", torch.ones(2))


def trained(width: int = 3, *, steps: int = 2) -> tuple[Pair, torch.optim.Optimizer]:
    pair = Pair(width)
    optimiser = torch.optim.AdamW(list(pair.student.named_parameters()), lr=0.1)
    for step in range(steps):
        optimiser.zero_grad()
        pair.student(torch.full((1, width), step + 1.0)).square().sum().backward()
        optimiser.step()
    return pair, optimiser


def save(folder: Path, pair: Pair, optimiser: torch.optim.Optimizer) -> Path:
    state.snapshot(
        method=pair, optimiser=optimiser, running={"steps": torch.tensor(1)}, state={"step": 2}
    ).on_host().write(folder)
    return folder


def test_a_checkpoint_restores_every_tensor_and_says_how_many(tmp_path: Path):
    pair, optimiser = trained()
    save(tmp_path, pair, optimiser)
    other, fresh = trained(steps=0)
    said = state.restore(tmp_path, method=other, optimiser=fresh)
    assert said == "5/5 tensors, and 6 of the optimiser"
    for name, tensor in pair.state_dict().items():
        assert torch.equal(tensor, other.state_dict()[name]), name
    mine, theirs = (each.state_dict()["state"] for each in (optimiser, fresh))
    assert mine.keys() == theirs.keys() and len(mine) == 2
    for number, entries in mine.items():
        assert entries.keys() == theirs[number].keys()
        assert all(torch.equal(value, theirs[number][entry]) for entry, value in entries.items())


def test_a_checkpoint_that_cannot_be_written_says_where_and_what_to_do(tmp_path: Path):
    with pytest.raises(OSError, match=r"cannot be written to .*make room there, then raymask resume"):
        save(tmp_path / "checkpoints" / "missing", *trained())


def test_nothing_in_a_checkpoint_is_pickled(tmp_path: Path):
    save(tmp_path, *trained())
    assert {path.suffix for path in tmp_path.iterdir()} == {".safetensors", ".json"}


def test_a_checkpoint_of_another_shape_is_refused_with_a_count(tmp_path: Path):
    save(tmp_path, *trained(4))
    other, fresh = trained(3)
    with pytest.raises(ValueError, match="3/5 tensors match; 2 have another shape"):
        state.restore(tmp_path, method=other, optimiser=fresh)


def test_missing_and_unknown_tensors_are_refused_by_name():
    one, two = {"a": torch.zeros(1)}, {"b": torch.zeros(1)}
    with pytest.raises(
        ValueError, match=r"0/1 tensors match; 1 are missing \(a, ...\); 1 are unknown \(b, ...\)"
    ):
        state.matches(two, one, where=Path("x"))


@pytest.mark.parametrize("name", ["model.safetensors", "optimiser.safetensors"])
def test_a_damaged_checkpoint_is_named(tmp_path: Path, name: str):
    save(tmp_path, *trained())
    (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:-7])
    with pytest.raises(ValueError, match=f"{name} cannot be read"):
        state.restore(tmp_path, method=trained()[0], optimiser=trained()[1])


def test_a_folder_that_is_no_checkpoint_is_named(tmp_path: Path):
    with pytest.raises(ValueError, match="is no checkpoint of raymask"):
        state.describe(tmp_path)


def test_another_config_is_refused_by_its_keys_unless_the_difference_is_harmless():
    one = {"run": {"seed": 0, "name": "a"}, "mask": {"ratio": {"kind": "constant", "value": 0.3}}}
    other = {"run": {"seed": 1, "name": "b"}, "mask": {"ratio": {"kind": "linear", "start": 0.3, "end": 1}}}
    assert state.differences(one, other) == ["run.seed", "run.name", "mask.ratio"]
    with pytest.raises(ValueError, match=r"another config: run.seed, mask.ratio differ"):
        state.refuse_another_config(one, other, where=Path("x"))
    state.refuse_another_config(one, {**one, "run": {"seed": 0, "name": "c"}}, where=Path("x"))
