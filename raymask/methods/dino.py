"""DINO (arXiv:2104.14294), with masks for whom `mask.views` names (arXiv:2506.10582: the student's globals).

The student must predict, from each crop, what its moving average - the teacher - says about the other crops
of the same image. Teacher outputs are centred and sharpened, so that they neither agree on one prototype nor
spread out.
"""

from copy import deepcopy
from math import log
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float
from pydantic import NonNegativeFloat
from torch import Tensor

from pipelines.batch import Batch
from pipelines.settings import Settings
from raymask.center import Center
from raymask.ema import ema_
from raymask.heads import DinoHead, Head
from raymask.losses import Prototypes, Targets, cross_view_loss, mean_over_pairs, teacher_targets
from raymask.masks import Mask, Masks
from raymask.methods.method import Method, Network
from raymask.methods.patch import Hidden, Patch, check_patch, hidden_patches
from raymask.methods.views import check_single_views, draw_masks, drop_path_draws, look, mask_report, numbered
from raymask.progress import Progress
from raymask.schedules import Constant, Cosine, Fraction, Ramp, Share, Temperature
from raymask.streams import Rng
from raymask.vit import Backbone

# b: images   v: crops   g, v2: global crops   n: patches   d: width of a token
# r: rows of the head   k: prototypes   w: width of the bottleneck


class Dino(Settings):
    """DINO's objective; defaults are the official code's. With `patch`, iBOT's (arXiv:2111.07832).

    cls_weight: of the [CLS] loss, beside that of `patch` (iBOT's lambda1)
    """

    kind: Literal["dino"] = "dino"
    head: Head = Head()
    student_temperature: Temperature = Constant(value=0.1)
    teacher_temperature: Temperature = Ramp(start=0.04, end=0.04)
    momentum: Share = Cosine(start=0.996, end=1.0)
    center_momentum: Fraction = 0.9
    cls_weight: NonNegativeFloat = 1.0
    patch: Patch | None = None


class Taught(NamedTuple):
    """What the teacher gives: targets for [CLS], its patch tokens (none without a patch objective), what its
    [CLS] attends to if asked."""

    targets: Targets
    patches: Float[Tensor, "v b n d"]
    attention: Float[Tensor, "v b n"] | None


class DinoNetwork(Network):
    """A backbone under DINO's head."""

    head: DinoHead


class DinoMethod(Method):
    """Student, teacher, center, and the cross-view loss between them; iBOT's patch loss where asked for."""

    student: DinoNetwork
    teacher: DinoNetwork

    def __init__(self, settings: Dino, backbone: Backbone, mask: Mask, *, seed: int) -> None:
        super().__init__()
        check_single_views(mask)
        check_patch(settings, mask)
        self.settings, self.mask = settings, mask
        token = mask.kind == "token" and mask.views != "none"
        body = backbone.build(seed=seed, mask_token=token)
        mask.check_guide(body.depth)
        if not body.has_cls:
            raise ValueError(
                f"method.kind={settings.kind} learns from [CLS], which backbone.name={backbone.name!r} "
                "has not: choose a ViT with a class token"
            )
        self.student = DinoNetwork(body, settings.head.build(body.dim, seed=seed))
        teacher = deepcopy(body).requires_grad_(False)
        self.teacher = DinoNetwork(teacher, settings.head.teacher(self.student.head))
        if mask.views != "student_and_teacher":
            self.teacher.backbone.mask_token = None  # the student's alone
        self.center = Center(settings.head.out_dim, momentum=settings.center_momentum)
        prototypes = settings.head.patch_dim or settings.head.out_dim
        self.patch = settings.patch.build(prototypes) if settings.patch else None

    def train(self, mode: bool = True) -> "DinoMethod":
        """The teacher's backbone never trains; its head does, because batch norm must see its batch there."""
        super().train(mode)
        self.teacher.backbone.eval()
        return self

    def forward(self, batch: Batch, progress: Progress, rng: Rng) -> dict[str, Tensor]:
        """The cross-view loss, its halves by student crop, the patch loss, and monitors of collapse."""
        guided = self.mask.is_guided
        masks = {} if guided else draw_masks(self.mask, batch, self.student.backbone, progress, rng)
        taught = self._teach(batch, masks, progress)
        if guided:
            masks = draw_masks(
                self.mask, batch, self.student.backbone, progress, rng, scores=self.scores(batch, taught)
            )
        crops, patches = self._study(batch, masks, rng)
        hidden = hidden_patches(masks["global"].hidden) if self.patch else None
        rows = self._bottleneck(crops, patches, hidden)
        terms = cross_view_loss(
            rows[: crops.shape[:2].numel()].unflatten(0, crops.shape[:2]),
            _prototypes(self.student.head),
            taught.targets.probabilities.unflatten(0, (len(batch.crops["global"]), -1)),
            temperature=self.settings.student_temperature(progress),
        )
        loss = self.settings.cls_weight * mean_over_pairs(terms)
        report = _report(terms.detach(), taught.targets) | mask_report(masks, batch)
        if hidden is not None:
            part = self._patch_loss(rows[crops.shape[:2].numel() :], taught, hidden, progress)
            loss, report = loss + part, report | {"loss_cls": loss.detach(), "loss_patch": part.detach()}
        return {"loss": loss, **report}

    def scores(self, batch: Batch, taught: Taught) -> Float[Tensor, "v b n"] | None:
        """What guides the masks of the global crops: AttMask's choice, the teacher's attention."""
        return taught.attention

    @torch.no_grad()
    def _teach(self, batch: Batch, masks: dict[str, Masks], progress: Progress) -> Taught:
        tokens, attention = look(
            self.teacher.backbone,
            batch.crops["global"],
            masks.get("global") if self.mask.views == "student_and_teacher" else None,
            kind=self.mask.kind,
            attention_block=self.mask.guide_block,
            patches=self.patch is not None,
        )
        targets = teacher_targets(
            self.teacher.head.bottleneck(tokens[:, :, 0].flatten(0, 1)),
            _prototypes(self.teacher.head),
            self.center.value,
            temperature=self.settings.teacher_temperature(progress),
        )
        self.center.add(targets.logit_sum, len(targets.probabilities))
        return Taught(targets, tokens[:, :, self.teacher.backbone.prefix :], attention)

    def _study(
        self, batch: Batch, masks: dict[str, Masks], rng: Rng
    ) -> tuple[Float[Tensor, "v b d"], Float[Tensor, "v2 b n d"]]:
        """The student's [CLS] of all crops, and its patches of the globals where they have an objective: a
        backbone pass a resolution."""
        tokens, backbone = {}, self.student.backbone
        for group, views in numbered(batch).items():
            drop = drop_path_draws(backbone, batch, rng, views=views)
            tokens[group], _ = look(
                backbone,
                batch.crops[group],
                masks.get(group),
                kind=self.mask.kind,
                drop=drop,
                patches=group == "global" and self.patch is not None,
            )
        crops = torch.cat([group[:, :, 0] for group in tokens.values()])
        return crops, tokens["global"][:, :, backbone.prefix :]

    def _bottleneck(
        self, crops: Float[Tensor, "v b d"], patches: Float[Tensor, "v2 b n d"], hidden: Hidden | None
    ) -> Float[Tensor, "r w"]:
        """One pass of the student's head over every crop's [CLS] and, behind them, the hidden patches."""
        rows = [crops.flatten(0, 1)]
        if hidden is not None:
            rows.append(patches.flatten(0, 2)[hidden.places])
        return self.student.head.bottleneck(torch.cat(rows))

    def _patch_loss(
        self, rows: Float[Tensor, "r w"], taught: Taught, hidden: Hidden, progress: Progress
    ) -> Float[Tensor, ""]:
        assert self.patch is not None and self.settings.patch is not None
        targets = self.patch.targets(self.teacher.head, taught.patches, hidden, progress)
        temperature = self.settings.student_temperature(progress)
        weight = self.student.head.patch_weight()
        return self.settings.patch.weight * self.patch.loss(
            rows, weight, targets, hidden, temperature=temperature
        )

    @torch.no_grad()
    def update_teacher(self, progress: Progress) -> None:
        """The teacher's moving average, and the centers' over the whole batch of all ranks."""
        ema_(self.teacher, self.student, self.settings.momentum(progress))
        self.center.move()
        if self.patch is not None:
            self.patch.center.move()

    def remarks(self) -> list[str]:
        """Says it where patch targets sharpen before there are any."""
        patch = self.settings.patch
        return [] if patch is None else patch.remarks(start=self.mask.start)

    def rates(self, progress: Progress) -> dict[str, float]:
        """Momentum, temperatures and guidance."""
        settings = self.settings
        rates = {
            "momentum": settings.momentum(progress),
            "student_temperature": settings.student_temperature(progress),
            "teacher_temperature": settings.teacher_temperature(progress),
            "guidance": self.mask.guidance(progress),
        }
        if settings.patch is not None:
            rates["patch_temperature"] = settings.patch.teacher_temperature(progress)
        return rates


def _prototypes(head: DinoHead) -> Prototypes:
    """The last layer in parts: the loss normalises it block by block."""
    return Prototypes(head.last_layer.direction, head.last_layer.gain)


@torch.no_grad()
def _report(terms: Float[Tensor, "g v"], targets: Targets) -> dict[str, Tensor]:
    """Halves of the loss by student crop, and monitors of collapse.

    teacher_entropy: of a row, on average; near 0 the teacher always has one answer, near ln K it has none
    teacher_spread: entropy of the mean row; near 0 all images have the same answer. No mean over images: each
        chunk of each rank gives that of its own images, and the mean of these grows with what a chunk holds
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
    }
