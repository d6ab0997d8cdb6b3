"""What MaskedKD has no use for, refused before the first step."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipelines.crops import MultiCrop
from raymask.masks import Mask
from raymask.methods.kd_objectives import Attention, Manifold
from raymask.methods.views import check_single_views

if TYPE_CHECKING:
    from raymask.methods.maskedkd import MaskedKD


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
