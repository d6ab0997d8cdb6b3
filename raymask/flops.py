"""What a step costs, in multiply-accumulates: a model with no network in it, exact to about one percent.

Only matrix products count; norms, activations, softmaxes and the optimiser do not. A multiply-accumulate is
what papers on Vision Transformers call a FLOP, and two floating-point operations. Everything is per source
image. The backward pass of what is trained costs two forward passes: one product for the gradient of the
input, one for that of the weights.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple


@dataclass(frozen=True)
class Vit:
    """The shape of a Vision Transformer. Its number of heads changes nothing.

    prefix: tokens before the patches; pixels: values of one patch; classes: outputs of its classifier, or 0
    """

    dim: int
    depth: int
    mlp_ratio: float = 4.0
    prefix: int = 1
    pixels: int = 3 * 16 * 16
    classes: int = 0

    def forward(self, visible: int, *, projected: int | None = None, patches: bool = True) -> float:
        """A forward pass that sees `visible` patches and embeds `projected` (None: only those it sees).

        Official codes embed every patch before they drop some, and finish every patch's way through the last
        block; raymask drops first, and without `patches` only [CLS] leaves the last block. Both are equal.

        >>> round(Vit(384, 12).forward(196) / 1e9, 3)
        4.598
        >>> round(Vit(384, 12).forward(196, patches=False) / 1e9, 3)
        4.278
        """
        tokens = self.prefix + visible
        embedded = visible if projected is None else projected
        body = blocks(tokens, dim=self.dim, depth=self.depth, mlp_ratio=self.mlp_ratio)
        if not patches:
            body -= visible * ((2 + 2 * self.mlp_ratio) * self.dim**2 + 2 * tokens * self.dim)
        return body + embedded * self.pixels * self.dim + self.dim * self.classes


@dataclass(frozen=True)
class Cait:
    """The shape of a CaiT: its heads mix their attention maps, and [CLS] joins in the last blocks only."""

    dim: int
    depth: int
    heads: int
    cls_depth: int = 2
    mlp_ratio: float = 4.0
    pixels: int = 3 * 16 * 16
    classes: int = 0

    def forward(self, visible: int, *, projected: int | None = None) -> float:
        """As a ViT's.

        >>> round(Cait(384, 24, heads=8, classes=1000).forward(98, projected=196) / 1e9, 2)
        4.49
        """
        embedded = visible if projected is None else projected
        mixing = 2 * self.heads**2 * visible**2
        body = blocks(visible, dim=self.dim, depth=self.depth, mlp_ratio=self.mlp_ratio)
        of_cls = (2 + 2 * self.mlp_ratio) * self.dim**2  # its query, projection and MLP
        of_all = (visible + 1) * (2 * self.dim**2 + 2 * self.dim)  # keys, values, one row of attention
        head = self.cls_depth * (of_cls + of_all) + self.dim * self.classes
        return body + self.depth * mixing + head + embedded * self.pixels * self.dim


TINY, SMALL, BASE, LARGE = Vit(192, 12), Vit(384, 12), Vit(768, 12), Vit(1024, 24)


def blocks(tokens: int, *, dim: int, depth: int, mlp_ratio: float = 4.0) -> float:
    """Blocks: a token costs 4 d^2 in the projections, 2 r d^2 in the MLP and 2 t d in attention."""
    return depth * ((4 + 2 * mlp_ratio) * dim**2 * tokens + 2 * tokens**2 * dim)


def layers(*widths: int) -> float:
    """One row through linear layers of these widths."""
    return sum(inside * outside for inside, outside in pairwise(widths))


class Cost(NamedTuple):
    """A training step's multiply-accumulates an image, by network."""

    frozen: float
    forward: float

    @property
    def backward(self) -> float:
        """Gradients of the student."""
        return 2 * self.forward

    @property
    def total(self) -> float:
        """The whole step."""
        return self.frozen + self.forward + self.backward


@dataclass(frozen=True)
class ProjectionHead:
    """DINO's head: its MLP, and the prototypes for [CLS] and for patches (iBOT)."""

    hidden: int = 2048
    bottleneck: int = 256
    prototypes: int = 65536
    patch_prototypes: int = 0

    def forward(self, dim: int, *, patches: float = 0) -> float:
        """A crop's [CLS], and so many of its patches."""
        mlp = layers(dim, self.hidden, self.hidden, self.bottleneck)
        prototypes = self.prototypes + patches * self.patch_prototypes
        return (1 + patches) * mlp + self.bottleneck * prototypes


@dataclass(frozen=True)
class Views:
    """How many crops of one size there are of an image, and how many patches each has."""

    count: int
    patches: int


def dino_step(
    vit: Vit,
    head: ProjectionHead,
    *,
    global_crops: Views,
    local_crops: Views,
    visible: int | None = None,
    patch_rows: float = 0,
    patches: bool = True,
) -> Cost:
    """DINO; iBOT and AttMask where the head has patch prototypes. Choosing the patches costs nothing visible.

    visible: patches that the student sees of a global crop (None: all, which is right for mask tokens, too)
    patch_rows: patches of a global crop that enter the student's head, on average; the teacher's takes all
    patches: whether patches without an objective leave the last block, as in the official codes
    """
    seen = global_crops.patches if visible is None else visible
    every = global_crops.patches if head.patch_prototypes else 0
    whole = patches or bool(every)
    teacher = vit.forward(global_crops.patches, patches=whole) + head.forward(vit.dim, patches=every)
    of_global = vit.forward(seen, patches=whole) + head.forward(vit.dim, patches=patch_rows)
    of_local = vit.forward(local_crops.patches, patches=patches) + head.forward(vit.dim)
    return Cost(
        frozen=global_crops.count * teacher,
        forward=global_crops.count * of_global + local_crops.count * of_local,
    )


def maskedkd_step(
    student: Vit, teacher: Vit | Cait, *, patches: int, kept: int, projected: int | None = None
) -> Cost:
    """MaskedKD: the student sees all patches, its frozen teacher those that are kept."""
    return Cost(frozen=teacher.forward(kept, projected=projected), forward=student.forward(patches))


@dataclass(frozen=True)
class Decoding:
    """MAE's decoder, whose length of a target is `target`; with `visible_branch`, DMJD's."""

    dim: int = 512
    depth: int = 8
    mlp_ratio: float = 4.0
    target: int = 768
    visible_branch: bool = False

    def forward(self, encoder: Vit, *, patches: int, visible: int) -> float:
        """One masked view: the decoder on every patch, the visible branch on those that were seen."""
        embed = (encoder.prefix + visible) * layers(encoder.dim, self.dim)
        body = blocks(encoder.prefix + patches, dim=self.dim, depth=self.depth, mlp_ratio=self.mlp_ratio)
        seen = layers(encoder.dim, self.dim, self.dim, self.dim, self.target) if self.visible_branch else 0
        return embed + body + patches * layers(self.dim, self.target) + visible * seen


def mae_step(
    encoder: Vit,
    decoder: Decoding,
    *,
    patches: int,
    visible: int,
    views: int = 1,
    projected: int | None = None,
) -> Cost:
    """MAE with one view of an image, DMJD with several. The targets are not counted."""
    view = encoder.forward(visible, projected=projected)
    view += decoder.forward(encoder, patches=patches, visible=visible)
    return Cost(frozen=0.0, forward=views * view)
