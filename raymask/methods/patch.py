"""iBOT's patch objective (arXiv:2111.07832): predict what the teacher says of the student's hidden patches.

The student's head runs on hidden patches only. The teacher's runs on all, because its center is the mean over
all; but that mean is linear in the last layer, so that there, too, prototypes meet hidden patches only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from pydantic import NonNegativeFloat
from torch import Tensor, nn

from pipelines.settings import Settings
from raymask.center import Center
from raymask.heads import DinoHead
from raymask.losses import patch_loss, teacher_targets
from raymask.masks import Mask
from raymask.progress import Progress
from raymask.schedules import Fraction, Ramp, Temperature

if TYPE_CHECKING:
    from raymask.methods.dino import Dino

# v: global crops   b: images   n: patches   r: hidden patches
# d: width of a token   w: width of the bottleneck   k: prototypes


class Patch(Settings):
    """The patch objective; `mask.start` says when it begins.

    weight: of the patch loss, beside `method.cls_weight` (iBOT's lambda2)
    teacher_temperature: of patch targets; `delay` it as long as `mask.start`
    """

    weight: NonNegativeFloat = 1.0
    teacher_temperature: Temperature = Ramp(start=0.04, end=0.07, warmup=0.3)
    center_momentum: Fraction = 0.9

    def build(self, prototypes: int) -> PatchObjective:
        """The objective, and its own center of so many prototypes."""
        return PatchObjective(self, Center(prototypes, momentum=self.center_momentum))

    def remarks(self, *, start: float) -> list[str]:
        """A sentence where the targets of masks that `start` late sharpen before there are any."""
        delay = getattr(self.teacher_temperature, "delay", start)
        if delay >= start:
            return []
        return [
            f"masks begin after {start:g} of the training (mask.start), but the temperature of their targets "
            f"moves from {delay:g} on; the released code has both wait: "
            f"method.patch.teacher_temperature.delay={start:g}"
        ]


class Hidden(NamedTuple):
    """The hidden patches of a batch.

    places: of the hidden patches among all [v * b * n]
    weights: 1 over the number of hidden patches of the same crop, and over v * b
    """

    places: Int[Tensor, " r"]
    weights: Float[Tensor, " r"]


def hidden_patches(hidden: Bool[Tensor, "v b n"]) -> Hidden:
    """Where the hidden patches are. Their number is not known ahead: on a GPU this waits for the masks."""
    rows = hidden.flatten(0, 1)
    share = 1 / rows.sum(1).clamp(min=1).double() / len(rows)
    places = rows.flatten().nonzero()[:, 0]
    return Hidden(places, share[places // rows.shape[1]])


class PatchObjective(nn.Module):
    """The loss between two heads on hidden patches, and the center that goes with it."""

    def __init__(self, settings: Patch, center: Center) -> None:
        super().__init__()
        self.settings = settings
        self.center = center

    @torch.no_grad()
    def targets(
        self, head: DinoHead, patches: Float[Tensor, "v b n d"], hidden: Hidden, progress: Progress
    ) -> Float[Tensor, "r k"]:
        """The teacher's probabilities at the hidden patches; takes all patches into the center."""
        rows = head.bottleneck(patches.flatten(0, 2))
        weight = head.patch_weight()
        with torch.autocast(rows.device.type, enabled=False):
            wide = torch.promote_types(rows.dtype, torch.float32)
            self.center.add(weight.to(wide) @ rows.sum(0, dtype=wide), len(rows))
        temperature = self.settings.teacher_temperature(progress)
        chosen = rows[hidden.places]
        return teacher_targets(chosen, weight, self.center.value, temperature=temperature).probabilities

    def loss(
        self,
        rows: Float[Tensor, "r w"],
        weight: Float[Tensor, "k w"],
        targets: Float[Tensor, "r k"],
        hidden: Hidden,
        *,
        temperature: float,
    ) -> Float[Tensor, ""]:
        """Mean over crops of the mean over their hidden patches; a crop without any counts as 0."""
        if not len(rows):  # no gradient, but every parameter takes part, as other ranks expect
            return (rows.sum() + weight.sum()) * 0
        return patch_loss(rows, weight, targets, hidden.weights, temperature=temperature)


def check_patch(settings: Dino, mask: Mask) -> None:
    """Raises ValueError where a patch objective has nothing to predict, or a last layer nothing to do."""
    if settings.patch is None and settings.head.patch_dim is not None:
        raise ValueError("method.head.patch_dim is for the patch objective: set method.patch or leave it out")
    if not settings.cls_weight and (settings.patch is None or not settings.patch.weight):
        raise ValueError(
            "method.cls_weight=0 leaves nothing to learn without a patch objective that counts: "
            "raise it, or method.patch.weight"
        )
    if settings.patch is not None and (mask.views != "student_globals" or mask.kind == "drop"):
        raise ValueError(
            "method.patch predicts the hidden patches of the student's global crops, but "
            f"mask.views={mask.views} and mask.kind={mask.kind}: "
            "choose mask.views=student_globals and mask.kind=token"
        )
