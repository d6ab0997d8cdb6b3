"""Projection heads: what turns a [CLS] token into scores over prototypes.

The last layer is split off (`bottleneck`, `weight`), so that a loss can fuse it with its softmax and never
hold the logits in float32.
"""

from copy import deepcopy
from itertools import pairwise
from typing import Literal

import torch
from jaxtyping import Float
from pydantic import PositiveInt, model_validator
from torch import Tensor, nn
from torch.nn.functional import linear, normalize

from pipelines.settings import Settings

# r: rows   d: width of a token   w: bottleneck width   k: prototypes


class Head(Settings):
    """The shape of DINO's head; defaults are the paper's.

    patch_dim: prototypes of a last layer for patches; None shares that of [CLS]
    teacher_patches: whether the teacher's patches share its prototypes of [CLS] or have their own. Where the
        student shares, its own ones have nobody to follow, and stay as they began
    """

    nlayers: PositiveInt = 3
    hidden_dim: PositiveInt = 2048
    bottleneck_dim: PositiveInt = 256
    out_dim: PositiveInt = 65536
    batch_norm: bool = False
    norm_last_layer: bool = True
    patch_dim: PositiveInt | None = None
    teacher_patches: Literal["as_student", "shared", "own"] = "as_student"

    @model_validator(mode="after")
    def _teacher_tells_as_many(self) -> "Head":
        if self.teacher_patches == "shared" and self.patch_dim not in (None, self.out_dim):
            raise ValueError(
                f"head.teacher_patches=shared gives patches targets over head.out_dim={self.out_dim} "
                f"prototypes, but the student has head.patch_dim={self.patch_dim} for them: make them equal"
            )
        return self

    def build(self, dim: int, *, seed: int, teacher: bool = False) -> "DinoHead":
        """A head for tokens of width `dim`; a teacher's gains are always frozen.

        The weights are a function of the arguments alone. Module constructors draw from torch's global
        stream: it is seeded and put back around them.
        """
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return DinoHead(dim, self, frozen_gain=self.norm_last_layer or teacher)

    def teacher(self, student: "DinoHead") -> "DinoHead":
        """The head of a teacher of this student: a copy, but for where its patches go."""
        head = deepcopy(student)
        if self.teacher_patches == "shared" and self.patch_dim is not None:
            del head.last_layer_patches
        if self.teacher_patches == "own" and self.patch_dim is None:
            head.last_layer_patches = deepcopy(head.last_layer)
        return head.requires_grad_(False)


class PrototypeLayer(nn.Module):
    """A linear layer without bias whose rows are `gain * direction / |direction|` (weight normalisation).

    The gradient of `direction` goes through the normalisation: it is orthogonal to the row. Gains start at 1.
    """

    def __init__(self, width: int, prototypes: int, *, frozen_gain: bool) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(prototypes, 1), requires_grad=not frozen_gain)
        self.direction = nn.Parameter(torch.empty(prototypes, width))
        nn.init.uniform_(
            self.direction, -(width**-0.5), width**-0.5
        )  # PyTorch's default, as in the official code

    def weight(self) -> Float[Tensor, "k w"]:
        """The effective weight."""
        return self.direction * (self.gain / self.direction.norm(dim=1, keepdim=True))


class DinoHead(nn.Module):
    """MLP with GELU, L2 normalisation, weight-normalised prototypes (DINO, arXiv:2104.14294, section 3.2)."""

    def __init__(self, dim: int, shape: Head, *, frozen_gain: bool) -> None:
        super().__init__()
        widths = [dim] + [shape.hidden_dim] * (shape.nlayers - 1) + [shape.bottleneck_dim]
        layers: list[nn.Module] = []
        for i, (inside, outside) in enumerate(pairwise(widths)):
            layers.append(_linear(inside, outside))
            if i < shape.nlayers - 1:
                layers += [nn.BatchNorm1d(outside)] * shape.batch_norm + [nn.GELU()]
        self.mlp = nn.Sequential(*layers)
        self.last_layer = PrototypeLayer(shape.bottleneck_dim, shape.out_dim, frozen_gain=frozen_gain)
        if shape.patch_dim is not None:
            self.last_layer_patches = PrototypeLayer(
                shape.bottleneck_dim, shape.patch_dim, frozen_gain=frozen_gain
            )

    @property
    def has_batch_norm(self) -> bool:
        """Whether rows of a batch see each other here."""
        return any(isinstance(layer, nn.BatchNorm1d) for layer in self.mlp)

    def bottleneck(self, tokens: Float[Tensor, "r d"]) -> Float[Tensor, "r w"]:
        """Unit rows: what the prototypes are compared with."""
        return normalize(self.mlp(tokens), dim=-1)

    def weight(self) -> Float[Tensor, "k w"]:
        """The effective weight of the last layer."""
        return self.last_layer.weight()

    def patch_weight(self) -> Float[Tensor, "k w"]:
        """The effective weight of the last layer that patches meet: their own, or the shared one."""
        return getattr(self, "last_layer_patches", self.last_layer).weight()

    def forward(self, tokens: Float[Tensor, "r d"]) -> Float[Tensor, "r k"]:
        """Scores of every prototype."""
        return linear(self.bottleneck(tokens), self.weight())


def _linear(inside: int, outside: int) -> nn.Linear:
    layer = nn.Linear(inside, outside)
    nn.init.trunc_normal_(layer.weight, std=0.02)
    nn.init.zeros_(layer.bias)
    return layer
