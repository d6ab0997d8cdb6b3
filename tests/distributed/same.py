"""When two batches are the same, in every mode of augmentation."""

import torch

from pipelines.batch import Batch
from pipelines.raw import RawCrops, RawPictures


def assert_same(one: Batch, other: Batch) -> None:
    """Bit for bit, but for where pictures lie among each other."""
    assert (one.step, one.rows, one.signature) == (other.step, other.rows, other.signature)
    for name in ("labels", "samples", "epochs", "positions"):
        assert torch.equal(getattr(one, name), getattr(other, name))
    assert one.crops.keys() == other.crops.keys()
    assert all(torch.equal(one.crops[name], other.crops[name]) for name in one.crops)
    assert type(one.raw) is type(other.raw)
    if isinstance(one.raw, RawCrops):
        assert all(torch.equal(one.raw.levels[name], other.raw.levels[name]) for name in one.raw.levels)
    if isinstance(one.raw, RawPictures):
        assert one.raw.largest == other.raw.largest and torch.equal(one.raw.sides, other.raw.sides)
        assert all(torch.equal(a, b) for a, b in zip(pictures(one.raw), pictures(other.raw)))
        assert torch.equal(one.raw.large, other.raw.large)
        assert one.raw.levels.keys() == other.raw.levels.keys()
        assert all(torch.equal(one.raw.levels[name], other.raw.levels[name]) for name in one.raw.levels)
    if one.raw is not None:
        assert torch.equal(one.raw.views, other.raw.views)


def pictures(raw: RawPictures) -> list[torch.Tensor]:
    """The bytes of each picture; where they lie among the others depends on who was first."""
    sides = raw.sides.index_fill(0, raw.large, 1).tolist()
    sizes = [h * w + 2 * ((h + 1) // 2) * ((w + 1) // 2) for h, w in sides]
    return [raw.pixels[start : start + size] for start, size in zip(raw.starts.tolist(), sizes)]
