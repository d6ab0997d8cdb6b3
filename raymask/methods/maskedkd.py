"""MaskedKD (arXiv:2302.10494): the student's attention decides which patches its frozen teacher gets to see.

The student is the guide: it sees the whole image, and its own forward of the step gives the attention. The
teacher is the follower: patches that the student hardly attends to are dropped from its sequence, which is
what saves time.
"""

from math import prod
from typing import Literal

import torch
from jaxtyping import Float, Int
from pydantic import Field, model_validator
from torch import Tensor, nn

from pipelines.batch import Batch
from pipelines.crops import MultiCrop
from pipelines.settings import Settings
from raymask.backbone import VisionBackbone
from raymask.classifier import classifier, monitors, share_right
from raymask.convbackbone import AnyBackbone
from raymask.distillation import base_loss, combine
from raymask.frozen import FrozenNetwork
from raymask.masks import Mask
from raymask.methods.kd_objectives import Attention, Layers, Lesson, Manifold, Nothing, Objective, Soft
from raymask.methods.keep import Keep, check_grids
from raymask.methods.maskedkd_masks import check_networks, check_row, check_settings, report_masks
from raymask.methods.method import Method, Network
from raymask.methods.study import Studied, at, attention_at, study, wide
from raymask.methods.views import draw_masks, drop_path_draws
from raymask.mixing import Erasing, Mixing, erase, mix
from raymask.progress import Progress
from raymask.schedules import Constant
from raymask.streams import Rng, uniforms
from raymask.teachers import Frozen

# v: views   b: images   r: rows = v * b   n: patches of the student   m: of the teacher   kept: that it sees
# c: classes   t: tokens   d: width of a token


class MaskedKD(Settings):
    """Supervised distillation with a masked teacher; the paper's at 50 % (its crops are the data's to cut).

    classes: how many the labels tell apart; None takes the data's
    selector: the network whose attention chooses, where keep.source is network
    """

    kind: Literal["maskedkd"] = "maskedkd"
    teacher: FrozenNetwork = FrozenNetwork()
    selector: FrozenNetwork | None = None
    objective: Objective = Soft()
    keep: Keep = Keep(ratio=Constant(value=0.5))
    mixing: Mixing = Mixing()
    erasing: Erasing = Erasing()
    classes: int | None = Field(default=None, ge=2)

    @model_validator(mode="after")
    def _has_a_selector(self) -> "MaskedKD":
        if self.keep.source == "network" and self.selector is None:
            raise ValueError("keep.source is network, so method.selector must say which one")
        if self.keep.source != "network" and self.selector is not None:
            raise ValueError(
                f"method.selector chooses patches where keep.source is network, but it is "
                f"{self.keep.source}: set method.keep.source=network, or leave method.selector out"
            )
        return self


class MaskedKDMethod(Method):
    """A student that learns from labels and from a frozen teacher that sees the patches it is given."""

    student: Network
    teacher: Frozen

    def __init__(
        self, settings: MaskedKD, backbone: AnyBackbone, mask: Mask, crops: MultiCrop, *, seed: int
    ) -> None:
        super().__init__()
        check_settings(settings, mask, crops)
        assert settings.classes is not None
        self.settings, self.mask, self.classes = settings, mask, settings.classes
        self.crops, self.views = crops, crops.global_crops.count
        body = backbone.build(seed=seed, mask_token=mask.kind == "token" and mask.views != "none")
        if not isinstance(body, VisionBackbone):
            raise ValueError(
                f"method.kind=maskedkd needs a student that attends, which "
                f"backbone.kind={getattr(backbone, 'kind', None)} does not: choose a plain ViT as backbone"
            )
        image_size = (crops.global_crops.height, crops.global_crops.width)
        body.grid(*image_size)
        self.student = Network(body, classifier(body, self.classes, seed=seed))
        self.teacher, self.selector = self._frozen(image_size, seed=seed)
        self.pairs: Layers = ()
        check_row(settings, body)
        if not isinstance(settings.objective, Nothing):
            self._check(body, image_size)

    def _frozen(self, image_size: tuple[int, int], *, seed: int) -> tuple[Frozen, Frozen | None]:
        settings = self.settings
        if isinstance(settings.objective, Nothing):
            return Frozen(nn.Identity()), None
        colours = self.crops.mean, self.crops.std
        teacher = settings.teacher.build(
            image_size=image_size, seed=seed + 1, classes=self.classes, colours=colours
        )
        if not settings.keep.is_partial or settings.keep.source != "network":
            return teacher, None
        assert settings.selector is not None
        return teacher, settings.selector.build(
            image_size=image_size, seed=seed + 2, classes=None, colours=colours
        )

    def _check(self, body: VisionBackbone, image_size: tuple[int, int]) -> None:
        """Refuses before the first step what could never work."""
        blank, keep = torch.zeros(1, 3, *image_size), self.settings.keep
        objective = self.settings.objective
        check_networks(self.settings, self.teacher, self.selector, image_size)
        if isinstance(objective, Manifold | Attention):
            check_grids(body.grid(*image_size), self.teacher.grid(blank), resample=False)
        if isinstance(objective, Manifold):
            self.pairs = objective.pairs(body.depth, len(self.teacher.network.blocks))
        if keep.is_partial:
            target = self.teacher.grid(blank)
            check_grids(self._source_grid(blank), target, resample=keep.grids == "bilinear")
            keep.check(target[0] * target[1])

    def forward(self, batch: Batch, progress: Progress, rng: Rng) -> dict[str, Tensor]:
        """The loss with labels and teacher, its parts, and what the teacher saw."""
        images, targets = self.augment(batch, rng)
        return self.learn(images, targets, batch, progress=progress, rng=rng)

    def learn(
        self,
        images: Float[Tensor, "r 3 h w"],
        targets: Int[Tensor, " r"] | Float[Tensor, "r c"],
        batch: Batch,
        *,
        progress: Progress,
        rng: Rng,
    ) -> dict[str, Tensor]:
        """The step of the paper on finished images and targets: student, scores, choice, teacher, loss."""
        student = self._study(images, batch, progress, rng)
        logits, distilled = (wide(z) for z in self.student.head(student.tokens))
        base = base_loss(logits, targets, smoothing=self.settings.mixing.smoothing)
        labels = targets.argmax(-1) if targets.is_floating_point() else targets
        report = {"loss": base, "base": base.detach(), "accuracy": share_right(logits, labels)}
        objective = self.settings.objective
        if isinstance(objective, Nothing):
            return report | report_masks(None, batch, patches=0)
        visible = self._choose(images, student.attention, batch, progress, rng)
        attends = isinstance(objective, Attention)
        seen = self.teacher(images, visible, layers=self._layers(1), attention=attends)
        with torch.autocast(images.device.type, enabled=False):
            lesson = Lesson(
                distilled,
                wide(seen.logits),
                tuple(map(wide, at(student.layers, visible))),
                tuple(map(wide, seen.tokens)),
                attention_at(student.attention if attends else None, visible),
                seen.attention,
            )
            terms = objective.terms(lesson, progress, rng)
        kd = torch.stack(list(terms.values())).sum()
        report["loss"] = combine(base, kd, alpha=objective.alpha(progress))
        report |= {name: term.detach() for name, term in terms.items()}
        patches = 0 if visible is None else prod(self.teacher.grid(images))
        return report | monitors(lesson.teacher, labels) | report_masks(visible, batch, patches=patches)

    def augment(self, batch: Batch, rng: Rng) -> tuple[Tensor, Tensor]:
        """What both networks get: images erased, then mixed. Views count as images of their own."""
        labels = batch.labels.repeat(len(batch.crops["global"]))
        images = batch.crops["global"].flatten(0, 1)
        if self.settings.erasing.probability > 0:
            images = erase(images, self._keys("erase", batch, rng), erasing=self.settings.erasing)
        if not self.settings.mixing.mixes:
            return images, labels
        return mix(images, labels, mixing=self.settings.mixing, classes=self.classes, rng=rng)

    def _study(self, images: Tensor, batch: Batch, progress: Progress, rng: Rng) -> Studied:
        """The student's pass. A masked student is a baseline: the paper's Figure 5."""
        backbone, keep = self.student.backbone, self.settings.keep
        attends = isinstance(self.settings.objective, Attention)
        return study(
            backbone,
            images,
            draw_masks(self.mask, batch, backbone, progress, rng).get("global"),
            kind=self.mask.kind,
            drop=drop_path_draws(backbone, batch, rng, views=range(len(batch.crops["global"]))),
            attention=attends or (keep.is_partial and keep.source == "student"),
            attention_gradient=attends,
            attention_tokens=2 if keep.row == "mean" else 1,
            blocks=self._layers(0),
        )

    @torch.no_grad()
    def _choose(
        self, images: Tensor, attention: Tensor | None, batch: Batch, progress: Progress, rng: Rng
    ) -> Int[Tensor, "r kept"] | None:
        """The patches that the teacher sees; None for all."""
        keep = self.settings.keep
        if not keep.is_partial:
            return None
        target = self.teacher.grid(images)
        patches = target[0] * target[1]
        if keep.amount(patches, progress) == patches:
            return None
        frozen = {"teacher": self.teacher, "network": self.selector}.get(keep.source)
        scores = attention if frozen is None else frozen.scores(images)
        noise = uniforms(self._keys("keep", batch, rng), 2 * patches).unflatten(1, (2, -1)).transpose(0, 1)
        return keep.choose(scores, noise, source=self._source_grid(images), target=target, progress=progress)

    def _source_grid(self, images: Tensor) -> tuple[int, int]:
        """Rows and columns of the grid that the scores come from."""
        sources = {"student": None, "teacher": self.teacher, "network": self.selector, "random": self.teacher}
        frozen = sources[self.settings.keep.source]
        return self.student.backbone.grid(*images.shape[-2:]) if frozen is None else frozen.grid(images)

    def _layers(self, which: int) -> tuple[int, ...]:
        return tuple(pair[which] for pair in self.pairs)

    def _keys(self, purpose: str, batch: Batch, rng: Rng) -> Int[Tensor, " r"]:
        views = range(len(batch.crops["global"]))
        return torch.cat([rng.per_sample(purpose, batch.epochs, batch.samples, view) for view in views])

    def image_weight(self, progress: Progress) -> float:
        """An image counts once for each of its crops: they stand for as many images of the paper's batch."""
        return float(self.views)

    def remarks(self) -> list[str]:
        """Says it where the teacher has learned nothing, or from other colours."""
        if isinstance(self.settings.objective, Nothing):
            return []
        return self.settings.teacher.remarks("method.teacher", colours=(self.crops.mean, self.crops.std))

    def update_teacher(self, progress: Progress) -> None:
        """Nothing: the teacher is frozen."""

    def rates(self, progress: Progress) -> dict[str, float]:
        """The schedules' values at this step."""
        objective, keep = self.settings.objective, self.settings.keep
        named = {
            "alpha": getattr(objective, "alpha", None),
            "temperature": getattr(objective, "temperature", None),
        }
        named |= {"guidance": keep.guidance, "keep_ratio": keep.ratio, "keep_count": keep.count}
        named |= {"random_share": keep.random_share}
        return {name: schedule(progress) for name, schedule in named.items() if schedule is not None}
