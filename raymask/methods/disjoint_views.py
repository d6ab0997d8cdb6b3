"""The masked views of each crop that a method without mask tokens trains on."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from pipelines.batch import Batch
from raymask.backbone import VisionBackbone
from raymask.masks import Mask, mask_signature
from raymask.masks.disjoint import Disjoint, Plan, disjoint_order, hidden_from, unit_patches
from raymask.methods.views import draw_masks
from raymask.progress import Progress
from raymask.streams import Rng, uniforms

# c: crops of an image   b: images   r: crops of all images   v: views of a crop   q: masked views of crops
# s: units of an image   n: patches   k: visible patches


@dataclass(frozen=True)
class Views:
    """Masked views of a batch's crops: rows go view by view, in each crop by crop, in each image by image.

    visible: patches that a row shows, in the order of the encoder's tokens
    count: views of a crop; signature: order-free 64-bit sum of the masks
    """

    visible: Int[Tensor, "q k"]
    hidden: Bool[Tensor, "q n"]
    count: int
    signature: Int[Tensor, ""]


def draw_views(
    mask: Mask,
    batch: Batch,
    backbone: VisionBackbone,
    progress: Progress,
    rng: Rng,
    *,
    scores: Float[Tensor, "c b n"] | None = None,
) -> Views:
    """The views of this step: disjoint ones, or a single one by any strategy that hides equal counts."""
    if isinstance(mask.strategy, Disjoint):
        return _disjoint(mask.strategy, mask.ratio(progress), batch, backbone, rng)
    masks = draw_masks(mask, batch, backbone, progress, rng, scores=scores)["global"]
    return Views(masks.visible().flatten(0, 1), masks.hidden.flatten(0, 1), 1, masks.signature)


def _disjoint(strategy: Disjoint, ratio: float, batch: Batch, backbone: VisionBackbone, rng: Rng) -> Views:
    crops = batch.crops["global"]
    grid = backbone.grid(*crops.shape[-2:])
    counts = strategy.plan(ratio, grid)
    # Crops are numbered first, so that a crop's first view is the same however many follow it.
    keys = [rng.per_sample("mask", batch.epochs, batch.samples, crop) for crop in range(len(crops))]
    draws = torch.stack([uniforms(key, counts.views * counts.units) for key in keys])
    draws = draws.unflatten(2, (counts.views, counts.units)).permute(2, 0, 1, 3).flatten(1, 2)
    visible, hidden = cut_views(draws, counts, grid=grid, unit=strategy.unit)
    rows = hidden.unflatten(0, (counts.views, len(crops), -1)).flatten(0, 1)
    signatures = [mask_signature(row, batch.epochs, batch.samples, view) for view, row in enumerate(rows)]
    return Views(visible, hidden, counts.views, torch.stack(signatures).sum())


def cut_views(
    draws: Float[Tensor, "v r s"], counts: Plan, *, grid: tuple[int, int], unit: int
) -> tuple[Int[Tensor, "q k"], Bool[Tensor, "q n"]]:
    """The visible patches and the masks of all views, view by view, given a uniform draw a view and unit."""
    units = disjoint_order(draws, counts)[:, :, : counts.visible]
    visible = unit_patches(units.flatten(0, 1), grid, unit)
    return visible, hidden_from(visible, grid[0] * grid[1])
