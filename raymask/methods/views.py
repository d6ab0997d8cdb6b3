"""What every method of crops shares: who is masked, what a network sees of its crops, and drop path's draws.

Crops are numbered through the groups of a batch in their order (globals first); the number keys all draws,
so that nothing depends on how the images are spread over chunks and ranks.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from pipelines.batch import Batch
from raymask.backbone import VisionBackbone
from raymask.masks import Mask, Masks, hide_pixels
from raymask.masks.disjoint import SEVERAL_VIEWS, Disjoint
from raymask.progress import Progress
from raymask.streams import Rng, uniforms

# v: crops of a group   b: images   n: patches   t: tokens   d: width of a token
# p: height in pixels   q: width in pixels

MASKED_GROUPS = {
    "none": (),
    "student_globals": ("global",),
    "student": ("global", "local"),
    "student_and_teacher": ("global", "local"),
}


def check_single_views(mask: Mask) -> None:
    """Raises ValueError for masks of several views of a crop, where a method sees each crop once."""
    if mask.views != "none" and isinstance(mask.strategy, Disjoint):
        raise ValueError(SEVERAL_VIEWS)


def numbered(batch: Batch) -> dict[str, range]:
    """The numbers of each group's crops among all crops of an image."""
    numbers, first = {}, 0
    for group, crops in batch.crops.items():
        numbers[group] = range(first, first := first + len(crops))
    return numbers


def draw_masks(
    mask: Mask,
    batch: Batch,
    backbone: VisionBackbone,
    progress: Progress,
    rng: Rng,
    *,
    scores: Float[Tensor, "v b n"] | None = None,
) -> dict[str, Masks]:
    """The masks of the groups that `mask.views` names; `scores` are the guide's, of the global crops."""
    masks = {}
    for group, views in numbered(batch).items():
        if group in MASKED_GROUPS[mask.views] and views:
            masks[group] = mask.draw(
                batch.epochs,
                batch.samples,
                views=views,
                grid=backbone.grid(*batch.crops[group].shape[-2:]),
                progress=progress,
                rng=rng,
                scores=scores if group == "global" else None,
            )
    return masks


def drop_path_draws(
    backbone: VisionBackbone, batch: Batch, rng: Rng, *, views: Sequence[int]
) -> Float[Tensor, "depth 2 rows"] | None:
    """Uniform draws for each block, branch and row (crop by crop); None for a network that drops no path."""
    if not any(backbone.rates):
        return None
    draws = [
        uniforms(rng.per_sample("drop_path", batch.epochs, batch.samples, view), 2 * backbone.depth)
        for view in views
    ]
    return torch.cat(draws).unflatten(1, (backbone.depth, 2)).permute(1, 2, 0)


def look(
    backbone: VisionBackbone,
    crops: Float[Tensor, "v b 3 p q"],
    masks: Masks | None,
    *,
    kind: str,
    drop: Tensor | None = None,
    attention_block: int | None = None,
    patches: bool = True,
) -> tuple[Float[Tensor, "v b t d"], Float[Tensor, "v b n"] | None]:
    """The tokens of all crops of a group in one pass, with the hidden patches hidden as `kind` says.

    With `attention_block`, also what [CLS] attends to there among the patches; without `patches`, only the
    tokens before them.
    """
    views, images = crops.shape[:2]
    pixels = crops.flatten(0, 1)
    hidden = visible = None
    if masks is not None and kind == "token":
        hidden = masks.hidden.flatten(0, 1)
    elif masks is not None and kind == "drop":
        visible = masks.visible().flatten(0, 1)
    elif masks is not None:
        assert kind == "pixel", kind
        pixels = hide_pixels(pixels, masks.hidden.flatten(0, 1), backbone.patch_size)
    tokens, extras = backbone(
        pixels,
        hidden=hidden,
        visible=visible,
        drop=drop,
        attention=attention_block is not None,
        attention_block=-1 if attention_block is None else attention_block,
        patches=patches,
    )
    attention = extras.get("attention")
    shape = (views, images)
    return tokens.unflatten(0, shape), None if attention is None else attention.unflatten(0, shape)


def mask_report(masks: dict[str, Masks], batch: Batch) -> dict[str, Tensor]:
    """Share of hidden patches in the masked crops, and the masks' signature."""
    if not masks:
        device = batch.samples.device
        return {
            "mask_ratio": torch.zeros((), dtype=torch.float64, device=device),
            "masks": torch.zeros((), dtype=torch.int64, device=device),
        }
    hidden = torch.cat([m.hidden.flatten() for m in masks.values()])
    return {
        "mask_ratio": hidden.double().mean(),
        "masks": torch.stack([m.signature for m in masks.values()]).sum(),
    }
