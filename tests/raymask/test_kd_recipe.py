"""A run of distillation by the papers' whole recipe: repeats, RandAugment, mixing and erasing, end to end."""

import json
import math
from pathlib import Path

import pytest

from raymask.config import load
from raymask.train import train
from tests.raymask.tiny_run import pictures

WITHOUT = {
    "repeats": "data.repeats=1",
    "randaugment": "data.crops.global_crops.randaugment=null",
    "mixing": "method.mixing.probability=0",
    "erasing": "method.erasing.probability=0",
}
CHANGES_DATA = {"repeats", "randaugment"}  # and with them the hash of samples and crop parameters


def lines(data: Path, root: Path, name: str, *changes: str) -> list[dict]:
    """The training lines of two steps of the full preset, its networks and crops of toy size."""
    # Erasing in a quarter of the images would leave four images alone too often.
    small = ["debug=true", "train.steps=2", "method.erasing.probability=1", "evaluate.every_images=null"]
    config = load("maskedkd-50", [*small, f"data={data}", f"run.root={root}", f"run.name={name}", *changes])
    found = [json.loads(line) for line in (train(config) / "metrics.jsonl").read_text().splitlines()]
    return [line for line in found if "loss" in line]


@pytest.mark.slow
def test_every_part_of_the_recipe_reaches_the_steps_of_a_run(tmp_path: Path):
    data = pictures(tmp_path / "pictures")
    whole = lines(data, tmp_path, "whole")
    assert [line["step"] for line in whole] == [1, 2]
    assert all(math.isfinite(line["loss"]) and line["grad_norm"] > 0 for line in whole)
    assert all(line["mask_ratio"] == 0.5 for line in whole)
    for part, change in WITHOUT.items():
        less = lines(data, tmp_path, part, change)
        assert [line["base"] for line in less] != [line["base"] for line in whole], part
        same = [line["samples"] for line in less] == [line["samples"] for line in whole]
        assert same == (part not in CHANGES_DATA), part
