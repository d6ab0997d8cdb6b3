"""What MaskedKD has no use for, refused before the first step; and what it says of its masks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from jaxtyping import Int
from torch import Tensor

from pipelines.batch import Batch
from pipelines.crops import MultiCrop
from raymask.backbone import VisionBackbone
from raymask.classifier import is_distilled
from raymask.masks import Mask, mask_signature
from raymask.masks.disjoint import hidden_from
from raymask.methods.kd_objectives import Attention, Manifold
from raymask.methods.views import check_single_views
from raymask.teachers import Frozen, require_maskable

if TYPE_CHECKING:
    from raymask.methods.maskedkd import MaskedKD

# r: rows = views * images   kept: patches that the teacher sees


def check_settings(settings: MaskedKD, mask: Mask, crops: MultiCrop) -> None:
    """Raises ValueError, in a sentence, for what the method has no use for."""
    if settings.classes is None:
        raise ValueError("method.classes is not known: distillation with labels needs data with classes")
    if mask.views == "student_and_teacher":
        raise ValueError(
            "mask.views=student_and_teacher: what the teacher sees is chosen by method.keep; "
            "mask.views=student_globals masks the student as well, none leaves it alone"
        )
    check_single_views(mask)
    if mask.is_guided:
        raise ValueError(
            f"mask.strategy.kind={mask.strategy.kind} needs a guide that runs before the student, but in "
            "method.kind=maskedkd the student runs first: set mask.views=none, or a mask without scores"
        )
    if mask.views != "none" and mask.kind == "drop" and isinstance(settings.objective, Manifold | Attention):
        raise ValueError(
            f"objective.kind={settings.objective.kind} compares both networks patch by patch, but "
            "mask.kind=drop takes some of the student's away: set mask.views=none"
        )
    if crops.local_crops.count:
        raise ValueError(
            "method.kind=maskedkd learns from global crops only: set data.crops.local_crops.count=0"
        )


def check_row(settings: MaskedKD, student: VisionBackbone) -> None:
    """Raises ValueError where the row of attention that is asked for is not there, or not the one meant."""
    if settings.keep.row == "cls":
        return
    if not is_distilled(student):
        raise ValueError(
            "method.keep.row=mean averages [CLS] and the distillation token, but the student has only one of "
            "them: set method.keep.row=cls, or a distilled backbone (deit_tiny_distilled_patch16_224)"
        )
    if settings.keep.source != "student" or isinstance(settings.objective, Attention):
        raise ValueError(
            f"method.keep.row=mean is for patches that the student chooses, but keep.source="
            f"{settings.keep.source} and objective.kind={settings.objective.kind} ask for the attention of "
            "[CLS]: set method.keep.row=cls"
        )


def check_networks(
    settings: MaskedKD, teacher: Frozen, selector: Frozen | None, image_size: tuple[int, int]
) -> None:
    """Raises ValueError where a frozen network lacks what is asked of it, or fails on images of this size."""
    if isinstance(settings.objective, Manifold | Attention):
        require_maskable(teacher.network, otherwise="set method.objective.kind=soft, hard or deit")
    if settings.keep.is_partial:
        require_maskable(teacher.network, otherwise="let the teacher see everything (method.keep.ratio=1)")
    settings.teacher.check_sight(teacher, image_size, name="method.teacher")
    if selector is not None and settings.selector is not None:
        require_maskable(selector.network, otherwise="let the student choose (method.keep.source=student)")
        settings.selector.check_sight(selector, image_size, name="method.selector")


@torch.no_grad()
def report_masks(visible: Int[Tensor, "r kept"] | None, batch: Batch, *, patches: int) -> dict[str, Tensor]:
    """Share of the teacher's `patches` that it did not see (None: it saw all), and the signature of which."""
    if visible is None:
        zero = torch.zeros((), device=batch.samples.device)
        return {"mask_ratio": zero.double(), "masks": zero.long()}
    hidden = hidden_from(visible, patches).unflatten(0, (-1, len(batch)))
    signatures = [mask_signature(each, batch.epochs, batch.samples, view) for view, each in enumerate(hidden)]
    return {"mask_ratio": hidden.double().mean(), "masks": torch.stack(signatures).sum()}
