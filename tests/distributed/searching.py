"""A search of seconds: tiny pictures, a tiny network."""

import json
from pathlib import Path

from raymask.metrics import read
from tests.raymask.tiny_run import RECIPE, pictures


def given(folder: Path, *words: str) -> list[str]:
    """The words of a search in `folder`, over the recipe of the tiny run."""
    recipe = folder / "tiny.yaml"
    if not recipe.exists():
        recipe.write_text(RECIPE)
        pictures(folder / "pictures")
    places = [f"preset={recipe}", f"data={folder / 'pictures'}", f"root={folder}", "metric=knn5_top1"]
    return [*places, "train.log_steps=1", *words]


def results(folder: Path) -> dict:
    """What results.json of a search says."""
    return json.loads((folder / "results.json").read_text())


def trained(run: Path) -> list[tuple]:
    """What each training line of a run says of the data, the masks, and what was learned."""
    keys = ("step", "samples", "masks", "loss", "mask_ratio")
    return [tuple(line[key] for key in keys) for line in read(run / "metrics.jsonl") if "loss" in line]
