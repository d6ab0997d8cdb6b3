"""MAE (arXiv:2111.06377): an encoder sees some patches of a crop, a decoder predicts something of the others.

With ConvViT as backbone this is ConvMAE (arXiv:2205.03892). The frame's guide is whatever gives the targets:
the pixels themselves, their gradients, the student's moving average or a frozen network; the student follows,
without the hidden patches. DMJD builds on this file.
"""

from copy import deepcopy
from typing import Literal

import torch
from jaxtyping import Float
from pydantic import Field, PositiveInt
from torch import Tensor, nn
from torch.nn.functional import layer_norm

from pipelines.batch import Batch
from pipelines.crops import MultiCrop
from pipelines.settings import Settings
from raymask.backbone import VisionBackbone
from raymask.convbackbone import AnyBackbone
from raymask.decoder import Decoder, VisibleBranch
from raymask.ema import ema_
from raymask.masks import Mask
from raymask.masks.attention import AttentionStrategy
from raymask.masks.disjoint import Disjoint
from raymask.methods.disjoint_views import Views, draw_views
from raymask.methods.mae_masks import check_masks, check_settings, fitting
from raymask.methods.mae_weights import fix_positions, initialise
from raymask.methods.method import Method, Network
from raymask.methods.views import drop_path_draws
from raymask.progress import Progress
from raymask.streams import Rng
from raymask.targets import Distance, FrozenTeacher, Pixels, Target, Teacher, hidden_loss

# b: images   c: crops of an image   r: crops (crop by crop)   q: their masked views (view by view)
# n: patches   k: visible patches   t: length of a target   m: prefix and visible tokens   d: width of a token


class DecoderShape(Settings):
    """Size of the decoder; MAE's."""

    dim: PositiveInt = 512
    depth: PositiveInt = 8
    heads: PositiveInt = 16
    mlp_ratio: float = Field(4.0, gt=0)


class Mae(Settings):
    """Prediction of hidden patches; the defaults are MAE's with normalised pixels.

    target: what is predicted; loss: how far off a prediction is
    """

    kind: Literal["mae"] = "mae"
    target: Target = Pixels()
    decoder: DecoderShape = DecoderShape()
    loss: Distance = "l2"


class Branches(nn.Module):
    """What stands on the encoder during training."""

    def __init__(self, decoder: Decoder, visible: VisibleBranch | None = None) -> None:
        super().__init__()
        self.decoder = decoder
        self.visible = visible


class Autoencoder(Network):
    """An encoder and its branches."""

    head: Branches


class MaeMethod(Method):
    """An encoder, a decoder, and whatever gives the targets."""

    student: Autoencoder

    def __init__(
        self, settings: Mae, backbone: AnyBackbone, mask: Mask, crops: MultiCrop, *, seed: int
    ) -> None:
        super().__init__()
        check_settings(settings, mask, crops)
        self.settings, self.mask, self.crops = settings, mask, crops
        body = backbone.build(seed=seed)
        trained = getattr(backbone, "starts_trained", False)
        if not trained:
            initialise(body, seed=seed)
        fix_positions(body, trained=trained)
        size = crops.global_crops.height, crops.global_crops.width
        grid = body.grid(*size)
        check_masks(mask, settings.target, body, grid)
        if isinstance(settings.target, Teacher):
            self.add_module("teacher", Network(deepcopy(body), nn.Identity()).requires_grad_(False))
            self.width = body.dim
        elif isinstance(settings.target, FrozenTeacher):
            frozen = settings.target.network.build(
                image_size=size, seed=seed, classes=None, colours=(crops.mean, crops.std)
            )
            self.frozen = fitting(frozen, size, grid)
            settings.target.network.check_sight(frozen, size, name="method.target.network")
            self.width = self.frozen.network.embed_dim
        else:
            self.width = settings.target.width(square(body.patch_size))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed + 1)
            head = self.branches(body, grid)
        initialise(head, seed=seed + 1)
        self.student = Autoencoder(body, head)

    def branches(self, body: VisionBackbone, grid: tuple[int, int]) -> Branches:
        """The decoder, on the grid of the training crops."""
        shape = self.settings.decoder
        return Branches(
            Decoder(
                body.dim,
                self.width,
                grid=grid,
                prefix=body.prefix,
                dim=shape.dim,
                depth=shape.depth,
                heads=shape.heads,
                mlp_ratio=shape.mlp_ratio,
            )
        )

    @property
    def teacher(self) -> Network:  # type: ignore[override]  # a property of what may not be there
        """The moving average that gives the targets; without one the student stands in for it."""
        teacher = self._modules.get("teacher")
        return teacher if isinstance(teacher, Network) else self.student

    def train(self, mode: bool = True) -> "MaeMethod":
        """A teacher never trains."""
        super().train(mode)
        if self.teacher is not self.student:
            self.teacher.eval()
        return self

    def forward(self, batch: Batch, progress: Progress, rng: Rng) -> dict[str, Tensor]:
        """The loss on hidden patches, and how much was hidden and predicted."""
        images = batch.crops["global"].flatten(0, 1)
        target, attention = self.guide(images)
        scores = None if attention is None else attention.unflatten(0, (-1, len(batch)))
        views = self.draw(batch, progress, rng, scores=scores)
        rows = range(len(views.visible) // len(batch))
        drop = drop_path_draws(self.student.backbone, batch, rng, views=rows)
        tokens = self.encode(images, views, drop=drop)
        terms = self.objective(tokens, target.repeat(views.count, 1, 1), views)
        return {**terms, **report(views, guidance(self.mask, progress))}

    @torch.no_grad()
    def guide(
        self, images: Float[Tensor, "r 3 h w"]
    ) -> tuple[Float[Tensor, "r n t"], Float[Tensor, "r n"] | None]:
        """What is to be predicted of each patch, and what [CLS] attends to, where the mask asks for it."""
        target, strategy = self.settings.target, self.mask.strategy
        guided = isinstance(strategy, AttentionStrategy)
        if isinstance(target, Teacher):
            body = self.teacher.backbone
            block = strategy.block if isinstance(strategy, AttentionStrategy) else -1
            tokens, extras = body(images, attention=guided, attention_block=block)
            return layer_norm(tokens[:, body.prefix :].float(), (body.dim,)), extras.get("attention")
        if isinstance(target, FrozenTeacher):
            (tokens,) = self.frozen(images, layers=(len(self.frozen.network.blocks) - 1,)).tokens
            scores = self.frozen.scores(images) if guided else None
            return layer_norm(tokens.float(), (self.width,)), scores
        patch = square(self.student.backbone.patch_size)
        return target(images, patch, mean=self.crops.mean, std=self.crops.std), None

    def draw(
        self, batch: Batch, progress: Progress, rng: Rng, *, scores: Float[Tensor, "c b n"] | None
    ) -> Views:
        """The masked views of this step; replaying somebody else's draws means overriding this."""
        return draw_views(self.mask, batch, self.student.backbone, progress, rng, scores=scores)

    def encode(
        self, images: Float[Tensor, "r 3 h w"], views: Views, *, drop: Tensor | None = None
    ) -> Float[Tensor, "q m d"]:
        """The tokens of what each view shows."""
        repeated = images.repeat(views.count, 1, 1, 1)
        return self.student.backbone(repeated, visible=views.visible, drop=drop)[0]

    def objective(
        self, tokens: Float[Tensor, "q m d"], target: Float[Tensor, "q n t"], views: Views
    ) -> dict[str, Tensor]:
        """The loss and its parts."""
        predicted = self.student.head.decoder(tokens, views.visible)
        return {"loss": hidden_loss(predicted, target, views.hidden, self.settings.loss)}

    def update_teacher(self, progress: Progress) -> None:
        """The moving average, where it gives the targets."""
        target = self.settings.target
        if isinstance(target, Teacher):
            ema_(self.teacher.backbone, self.student.backbone, target.momentum(progress))

    def rates(self, progress: Progress) -> dict[str, float]:
        """The teacher's momentum, where there is one, and how many masked views are made of an image."""
        target = self.settings.target
        momentum = {"momentum": target.momentum(progress)} if isinstance(target, Teacher) else {}
        return {"views": float(self.crops.global_crops.count * self._views(progress)), **momentum}

    def _views(self, progress: Progress) -> int:
        """Masked views of a crop."""
        strategy = self.mask.strategy
        if not isinstance(strategy, Disjoint):
            return 1
        size = self.crops.global_crops
        grid = self.student.backbone.grid(size.height, size.width)
        return strategy.plan(self.mask.ratio(progress), grid).views


def guidance(mask: Mask, progress: Progress) -> float:
    """How far the masks follow attention."""
    strategy = mask.strategy
    return strategy.guidance(progress) if isinstance(strategy, AttentionStrategy) else 0.0


def square(patch_size: tuple[int, int]) -> int:
    """The side of a square patch."""
    if patch_size[0] != patch_size[1]:
        raise ValueError(
            f"patches of {patch_size[0]}x{patch_size[1]} pixels are not square, as targets need them"
        )
    return patch_size[0]


@torch.no_grad()
def report(views: Views, guidance: float) -> dict[str, Tensor]:
    """Shares of patches hidden in a view and in any view of a crop, and the masks' signature."""
    any_view = views.hidden.unflatten(0, (views.count, -1)).any(0)
    return {
        "mask_ratio": views.hidden.double().mean(),
        "prediction_rate": any_view.double().mean(),
        "guidance": torch.full((), guidance, dtype=torch.float64, device=any_view.device),
        "masks": views.signature,
    }
