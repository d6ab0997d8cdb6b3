"""A search goes on, and what it found is trained, from any directory and under a name of its own."""

from pathlib import Path

import pytest

from raymask.config import load
from raymask.distributed.search import parse
from raymask.distributed.tune import _from_anywhere
from tests.raymask.tiny_run import RECIPE, pictures


def test_a_search_remembers_absolute_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    Path("tiny.yaml").write_text(RECIPE)
    pictures(Path("photos"))
    given = ["preset=tiny.yaml", "budget=960", "data=photos", "optim.base_lr=0.1", "data.threads=1"]
    search, changes = parse("mask_ratio", given)
    kept, made = _from_anywhere(search, changes, load(search.preset, changes))
    assert kept.preset == str(tmp_path / "tiny.yaml")
    assert made == ["optim.base_lr=0.1", "data.threads=1", f"data.train={tmp_path / 'photos'}"]
    monkeypatch.chdir("/")
    assert load(kept.preset, made).data.train == str(tmp_path / "photos")


def test_a_preset_by_name_and_data_elsewhere_stay_as_they_are():
    given = ["preset=dino-laptop", "budget=960", "data=s3://bucket/shards", "data.val=/no/such"]
    search, changes = parse("mask_ratio", given)
    assert _from_anywhere(search, changes, load(search.preset, changes)) == (search, changes)


def test_a_run_by_what_a_search_found_is_named_after_the_search(tmp_path: Path):
    for folder, name in (("t1", "t1-best"), ("plain", "best")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "best.yaml").write_text("extends: dino-laptop")
        if folder == "t1":
            (tmp_path / folder / "search.yaml").touch()
        assert load(str(tmp_path / folder / "best.yaml")).run.name == name
    assert load(str(tmp_path / "t1" / "best.yaml"), ["run.name=mine"]).run.name == "mine"


def test_what_a_search_lacks_is_said_with_an_example():
    with pytest.raises(ValueError, match="is missing") as refused:
        parse("mask_ratio", ["trials=4"])
    preset, budget = str(refused.value).splitlines()
    assert preset.startswith("'preset' is missing") and preset.endswith(
        "such as preset=dino-random-mask-laptop"
    )
    assert budget.startswith("'budget' is missing") and budget.endswith("such as budget=400000")
