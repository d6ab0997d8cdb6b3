"""DINO (arXiv:2104.14294), with masks for whom `mask.views` names (arXiv:2506.10582: the student's globals).

The student must predict, from each crop, what its moving average - the teacher - says about the other crops
of the same image. Teacher outputs are centred and sharpened, so that they neither agree on one prototype nor
spread out.
"""

from copy import deepcopy
from math import log
from typing import Literal

import torch
from jaxtyping import Float
from pydantic import PositiveFloat
from torch import Tensor

from pipelines.batch import Batch
from pipelines.settings import Settings
from raymask.ema import ema_
from raymask.heads import Head
from raymask.losses import Targets, cross_view_loss, mean_over_pairs, moved_center, teacher_targets
from raymask.masks import Mask, Masks
from raymask.methods.method import Method, Network
from raymask.methods.views import draw_masks, drop_path_draws, look, mask_report, numbered
from raymask.progress import Progress
from raymask.schedules import Cosine, Fraction, Ramp, Schedule
from raymask.streams import Rng
from raymask.vit import Backbone
from raymask.world import sum_across

# b: images   v: crops   g: global crops   k: prototypes   w: width of the bottleneck


class Dino(Settings):
    """DINO's objective; defaults are the official code's."""

    kind: Literal["dino"] = "dino"
    head: Head = Head()
    student_temperature: PositiveFloat = 0.1
    teacher_temperature: Schedule = Ramp(start=0.04, end=0.04)
    momentum: Schedule = Cosine(start=0.996, end=1.0)
    center_momentum: Fraction = 0.9


class DinoMethod(Method):
    """Student, teacher, center, and the cross-view loss between them."""

    center: Float[Tensor, " k"]
    logit_sum: Float[Tensor, " k"]
    logit_count: Float[Tensor, ""]

    def __init__(self, settings: Dino, backbone: Backbone, mask: Mask, *, seed: int) -> None:
        super().__init__()
        self.settings, self.mask = settings, mask
        token = mask.kind == "token" and mask.views != "none"
        body = backbone.build(seed=seed, mask_token=token)
        self.student = Network(body, settings.head.build(body.dim, seed=seed))
        self.teacher = deepcopy(self.student).requires_grad_(False)
        if mask.views != "student_and_teacher":
            self.teacher.backbone.mask_token = None  # the student's alone
        prototypes = settings.head.out_dim
        self.register_buffer("center", torch.zeros(prototypes))
        # What the chunks of one step add up, until `update_teacher`; empty whenever a checkpoint is written.
        self.register_buffer("logit_sum", torch.zeros(prototypes), persistent=False)
        self.register_buffer("logit_count", torch.zeros(()), persistent=False)

    def train(self, mode: bool = True) -> "DinoMethod":
        """The teacher's backbone never trains; its head does, because batch norm must see its batch there."""
        super().train(mode)
        self.teacher.backbone.eval()
        return self

    def forward(self, batch: Batch, progress: Progress, rng: Rng) -> dict[str, Tensor]:
        """The cross-view loss, its halves by student crop, and monitors of collapse."""
        masks = draw_masks(self.mask, batch, self.student.backbone, progress, rng)
        targets = self._teach(batch, masks, progress)
        rows = self._study(batch, masks, rng)
        views = batch.crops["global"].shape[0]
        terms = cross_view_loss(
            rows,
            self.student.head.weight(),
            targets.probabilities.unflatten(0, (views, -1)),
            temperature=self.settings.student_temperature,
        )
        self.logit_sum += targets.logit_sum
        self.logit_count += len(targets.probabilities)
        loss = mean_over_pairs(terms)
        return {"loss": loss, **_report(terms.detach(), targets), **mask_report(masks, batch)}

    @torch.no_grad()
    def _teach(self, batch: Batch, masks: dict[str, Masks], progress: Progress) -> Targets:
        own = masks.get("global") if self.mask.views == "student_and_teacher" else None
        tokens = look(self.teacher.backbone, batch.crops["global"], own, kind=self.mask.kind)
        temperature = self.settings.teacher_temperature(progress)
        head = self.teacher.head
        return teacher_targets(
            head.bottleneck(tokens[:, :, 0].flatten(0, 1)),
            head.weight(),
            self.center,
            temperature=temperature,
        )

    def _study(self, batch: Batch, masks: dict[str, Masks], rng: Rng) -> Float[Tensor, "v b w"]:
        """The student's bottleneck rows of all crops: a backbone pass a resolution, one head pass."""
        rows, backbone = [], self.student.backbone
        for group, views in numbered(batch).items():
            drop = drop_path_draws(backbone, batch, rng, views=views)
            tokens = look(backbone, batch.crops[group], masks.get(group), kind=self.mask.kind, drop=drop)
            rows.append(tokens[:, :, 0])
        crops = torch.cat(rows)
        return self.student.head.bottleneck(crops.flatten(0, 1)).unflatten(0, crops.shape[:2])

    @torch.no_grad()
    def update_teacher(self, progress: Progress) -> None:
        """The teacher's moving average, and the center's over the whole batch of all ranks."""
        ema_(self.teacher, self.student, self.settings.momentum(progress))
        total = sum_across(torch.cat([self.logit_sum, self.logit_count[None]]))
        self.center.copy_(
            moved_center(self.center, total[:-1], total[-1], momentum=self.settings.center_momentum)
        )
        self.logit_sum.zero_()
        self.logit_count.zero_()

    def rates(self, progress: Progress) -> dict[str, float]:
        """Momentum and teacher temperature."""
        settings = self.settings
        return {
            "momentum": settings.momentum(progress),
            "teacher_temperature": settings.teacher_temperature(progress),
        }


@torch.no_grad()
def _report(terms: Float[Tensor, "g v"], targets: Targets) -> dict[str, Tensor]:
    """Halves of the loss by student crop, and monitors of collapse.

    teacher_entropy: of a row, on average; near 0 the teacher always has one answer, near ln K it has none
    teacher_spread: entropy of the mean row; near 0 all images have the same answer
    below_uniform: ln K - loss; ln K is what a student without any idea pays, so 0 for long is collapse
    """
    uniform = log(targets.probabilities.shape[1])
    globals_ = terms[:, : len(terms)]
    halves = {"loss_global": mean_over_pairs(globals_)}
    if terms.shape[1] > len(terms):
        halves["loss_local"] = terms[:, len(terms) :].mean()
    return halves | {
        "teacher_entropy": targets.entropy.mean(),
        "teacher_spread": targets.mean_entropy,
        "below_uniform": uniform - mean_over_pairs(terms),
        "guidance": torch.zeros_like(targets.mean_entropy),
    }
