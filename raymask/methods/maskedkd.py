"""MaskedKD (arXiv:2302.10494): the student's attention decides which patches its frozen teacher gets to see.

The student is the guide: it sees the whole image, and its own forward of the step gives the attention. The
teacher is the follower: patches that the student hardly attends to are dropped from its sequence, which is
what saves time.
"""

from typing import Literal

import torch
from jaxtyping import Float, Int
from pydantic import Field, model_validator
from torch import Tensor, nn

from pipelines.batch import Batch
from pipelines.settings import Settings
from raymask.backbone import VisionBackbone
from raymask.classifier import classifier
from raymask.distillation import base_loss, combine
from raymask.frozen import FrozenNetwork
from raymask.masks import Mask, hide_pixels, mask_signature
from raymask.masks.disjoint import hidden_from
from raymask.methods.kd_objectives import Layers, Lesson, Manifold, Nothing, Objective, Soft
from raymask.methods.keep import Keep, check_grids
from raymask.methods.method import Method, Network
from raymask.methods.views import draw_masks, drop_path_draws
from raymask.mixing import Erasing, Mixing, erase, mix
from raymask.progress import Progress
from raymask.schedules import Constant
from raymask.streams import Rng, uniforms
from raymask.teachers import Frozen, require_maskable
from raymask.vit import Backbone

# v: views   b: images   r: rows = v * b   n: patches of the student   m: of the teacher   kept: that it sees
# c: classes   t: tokens   d: width of a token


class MaskedKD(Settings):
    """Supervised distillation with a masked teacher; the paper's at 50 %, without its augmentation.

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
        return self


class MaskedKDMethod(Method):
    """A student that learns from labels and from a frozen teacher that sees the patches it is given."""

    student: Network
    teacher: Frozen

    def __init__(
        self,
        settings: MaskedKD,
        backbone: Backbone,
        mask: Mask,
        *,
        image_size: tuple[int, int],
        seed: int,
    ) -> None:
        super().__init__()
        if settings.classes is None:
            raise ValueError("method.classes is not known: distillation with labels needs data with classes")
        if mask.views == "student_and_teacher":
            raise ValueError(
                "mask.views=student_and_teacher: what the teacher sees is chosen by method.keep; "
                "mask.views=student_globals masks the student as well, none leaves it alone"
            )
        self.settings, self.mask, self.classes = settings, mask, settings.classes
        body = backbone.build(seed=seed, mask_token=mask.kind == "token" and mask.views != "none")
        self.student = Network(body, classifier(body, self.classes, seed=seed))
        self.teacher, self.selector = self._frozen(image_size, seed=seed)
        self.pairs: Layers = ()
        if not isinstance(settings.objective, Nothing):
            self._check(body, image_size)

    def _frozen(self, image_size: tuple[int, int], *, seed: int) -> tuple[Frozen, Frozen | None]:
        settings = self.settings
        if isinstance(settings.objective, Nothing):
            return Frozen(nn.Identity()), None
        teacher = settings.teacher.build(image_size=image_size, seed=seed + 1, classes=self.classes)
        if not settings.keep.is_partial or settings.keep.source != "network":
            return teacher, None
        assert settings.selector is not None
        return teacher, settings.selector.build(image_size=image_size, seed=seed + 2, classes=None)

    def _check(self, body: VisionBackbone, image_size: tuple[int, int]) -> None:
        """Refuses before the first step what could never work."""
        blank, keep = torch.zeros(1, 3, *image_size), self.settings.keep
        if isinstance(self.settings.objective, Manifold):
            require_maskable(self.teacher.network)
            self.pairs = self.settings.objective.pairs(body.depth, len(self.teacher.network.blocks))
            check_grids(body.grid(*image_size), self.teacher.grid(blank), resample=False)
        if keep.is_partial:
            target = self.teacher.grid(blank)
            check_grids(self._source_grid(blank), target, resample=keep.grids == "bilinear")
            keep.amount(target[0] * target[1], Progress(step=0, steps=1, steps_per_epoch=1))

    def forward(self, batch: Batch, progress: Progress, rng: Rng) -> dict[str, Tensor]:
        """The loss with labels and teacher, its parts, and what the teacher saw."""
        images, targets = self._augment(batch, rng)
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
        tokens, attention, layers = self._study(images, batch, progress, rng)
        logits, distilled = (_wide(z) for z in self.student.head(tokens))
        base = base_loss(logits, targets, smoothing=self.settings.mixing.smoothing)
        labels = targets.argmax(-1) if targets.is_floating_point() else targets
        report = {"loss": base, "base": base.detach(), "accuracy": _share_right(logits, labels)}
        objective = self.settings.objective
        if isinstance(objective, Nothing):
            return report | self._report_masks(None, images, batch)
        visible = self._choose(images, attention, batch, progress, rng)
        seen = self.teacher(images, visible, layers=self._layers(1))
        with torch.autocast(images.device.type, enabled=False):
            lesson = Lesson(
                distilled,
                _wide(seen.logits),
                tuple(map(_wide, _at(layers, visible))),
                tuple(map(_wide, seen.tokens)),
            )
            terms = objective.terms(lesson, progress, rng)
        kd = torch.stack(list(terms.values())).sum()
        report["loss"] = combine(base, kd, alpha=objective.alpha(progress))
        report |= {name: term.detach() for name, term in terms.items()}
        return report | _monitors(lesson.teacher, labels) | self._report_masks(visible, images, batch)

    def _augment(self, batch: Batch, rng: Rng) -> tuple[Tensor, Tensor]:
        """What both networks get: images erased, then mixed. Views count as images of their own."""
        labels = batch.labels.repeat(len(batch.crops["global"]))
        images = batch.crops["global"].flatten(0, 1)
        if self.settings.erasing.probability > 0:
            images = erase(images, self._keys("erase", batch, rng), erasing=self.settings.erasing)
        if not self.settings.mixing.mixes:
            return images, labels
        return mix(images, labels, mixing=self.settings.mixing, classes=self.classes, rng=rng)

    def _study(
        self, images: Float[Tensor, "r 3 h w"], batch: Batch, progress: Progress, rng: Rng
    ) -> tuple[Tensor, Tensor | None, tuple[Tensor, ...]]:
        """The student's tokens, what [CLS] attends to in the last block, and patch tokens by pair of layers.

        A masked student is a baseline (the paper's Figure 5): patches that it does not see get no attention.
        """
        backbone, blocks = self.student.backbone, self._layers(0)
        drop = drop_path_draws(backbone, batch, rng, views=range(len(batch.crops["global"])))
        masks = draw_masks(self.mask, batch, backbone, progress, rng).get("global")
        hidden = None if masks is None else masks.hidden.flatten(0, 1)
        visible = masks.visible().flatten(0, 1) if masks and self.mask.kind == "drop" else None
        if hidden is not None and self.mask.kind == "pixel":
            images, hidden = hide_pixels(images, hidden, backbone.patch_size), None
        tokens, extras = backbone(
            images,
            hidden=hidden if visible is None else None,
            visible=visible,
            drop=drop,
            attention=self.settings.keep.is_partial and self.settings.keep.source == "student",
            blocks=blocks,
        )
        attention = extras.get("attention")
        if attention is not None and visible is not None:
            rows, columns = backbone.grid(*images.shape[-2:])
            attention = attention.new_zeros(len(images), rows * columns).scatter(1, visible, attention)
        by_block = dict(zip(sorted(set(blocks)), extras["blocks"]))
        return tokens, attention, tuple(by_block[block][:, backbone.prefix :] for block in blocks)

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

    def _report_masks(self, visible: Tensor | None, images: Tensor, batch: Batch) -> dict[str, Tensor]:
        """Share of patches that the teacher did not see, and the signature of which."""
        zero = torch.zeros((), device=images.device)
        if visible is None:
            return {"mask_ratio": zero, "masks": zero.long()}
        rows, columns = self.teacher.grid(images)
        hidden = hidden_from(visible, rows * columns).unflatten(0, (len(batch.crops["global"]), -1))
        signatures = [
            mask_signature(each, batch.epochs, batch.samples, view) for view, each in enumerate(hidden)
        ]
        return {"mask_ratio": hidden.float().mean(), "masks": torch.stack(signatures).sum()}

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
        return {name: schedule(progress) for name, schedule in named.items() if schedule is not None}


def _at(layers: tuple[Tensor, ...], visible: Tensor | None) -> tuple[Tensor, ...]:
    """The student's tokens at the places that the teacher saw."""
    if visible is None:
        return layers
    return tuple(t.gather(1, visible[:, :, None].expand(-1, -1, t.shape[2])) for t in layers)


@torch.no_grad()
def _share_right(logits: Float[Tensor, "r c"], labels: Int[Tensor, " r"]) -> Float[Tensor, ""]:
    return (logits.argmax(-1) == labels).float().mean()


@torch.no_grad()
def _monitors(logits: Float[Tensor, "r c"], labels: Int[Tensor, " r"]) -> dict[str, Tensor]:
    entropy = -(logits.softmax(-1) * logits.log_softmax(-1)).sum(-1).mean()
    return {"teacher_entropy": entropy, "teacher_accuracy": _share_right(logits, labels)}


def _wide(tensor: Tensor) -> Tensor:
    """Half precision is for matrix products; losses are summed in float32 or better."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))
