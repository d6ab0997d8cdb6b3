"""A real run of a few steps on a few real pictures, for the tests of what comes out of one."""

from pathlib import Path

import numpy as np
from PIL import Image

from raymask.config import load
from raymask.train import train

RECIPE = """
extends: dino-random-mask
data:
  threads: 1
  crops:
    global_crops: {size: 16}
    local_crops: {count: 2, size: 8}
backbone: {image_size: 16, patch_size: 4, dim: 32, depth: 5, heads: 2}
method: {head: {out_dim: 64, hidden_dim: 32, bottleneck_dim: 16}}
train: {epochs: 2, global_batch: 12, log_steps: 2, precision: float32}
evaluate: {resize: 16, knn: [1, 5, 50], every_images: 24, linear_epochs: 5}
"""


def pictures(folder: Path, *, classes: tuple[str, ...] = ("dark", "light", "red"), count: int = 8) -> Path:
    """train/ and val/ with `count` pictures a class; a flat heap of them for no classes."""
    rng = np.random.default_rng(0)
    for split, many in (("train", count), ("val", count // 2)):
        for label, name in enumerate(classes or ("",)):
            below = folder / split / name if classes else folder
            below.mkdir(parents=True, exist_ok=True)
            for number in range(many):
                tint = np.array([40 + 80 * label, 40 + 60 * label, 40], np.float32)
                pixels = np.clip(tint + rng.normal(0, 20, (20, 24, 3)), 0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(below / f"{split}{number}.png")
    return folder


def tiny_run(folder: Path, *changes: str, data: Path | None = None) -> Path:
    """A finished run; the same arguments give the same run."""
    recipe = folder / "tiny.yaml"
    recipe.write_text(RECIPE)
    data = data or pictures(folder / "pictures")
    return train(load(str(recipe), [f"run.root={folder}", f"data.train={data}", *changes]))
