"""ConvViT as a backbone of a run: its settings, and the calls that a `VisionBackbone` answers."""

from typing import Annotated, Any, Literal

import torch
from jaxtyping import Bool, Float, Int
from pydantic import Discriminator, Field, PositiveFloat, PositiveInt, Tag, model_validator
from torch import Tensor, nn

from pipelines.settings import Settings
from raymask.backbone import Extras, VisionBackbone
from raymask.convvit import ConvViT
from raymask.vit import Backbone

# b: images   n: patches of an image   k: visible patches   d: width of a token

Triple = tuple[PositiveInt, PositiveInt, PositiveInt]


class ConvVisionBackbone(VisionBackbone):
    """A ConvViT in the place of a timm network: it drops patches and has no class or mask token."""

    attends = False

    vit: ConvViT  # type: ignore[assignment]  # the one part in which it is no timm network

    def __init__(self, vit: ConvViT) -> None:
        nn.Module.__init__(self)  # the parent's constructor reads what only timm's networks have
        self.vit = vit
        self.mask_token, self.prefix, self.has_cls = None, 0, False
        self.patch_size, self.native, self.dim = vit.patch_size, vit.native, vit.dim
        self.rates = [0.0] * self.depth  # the recipes train without drop path

    @property
    def depth(self) -> int:
        """Number of ViT blocks."""
        return len(self.vit.blocks3)

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of patches of an image."""
        return self.vit.grid(height, width)

    def forward(
        self,
        images: Float[Tensor, "b 3 height width"],
        *,
        hidden: Bool[Tensor, "b n"] | None = None,
        visible: Int[Tensor, "b k"] | None = None,
        drop: Tensor | None = None,
        attention: bool = False,
        attention_block: int = -1,
        attention_gradient: bool = False,
        attention_tokens: int = 1,
        last: int = 1,
        blocks: tuple[int, ...] = (),
        patches: bool = True,
    ) -> tuple[Float[Tensor, "b k d"], Extras]:
        """The tokens of the visible patches; extras["cls"] is their mean, whatever `last` says.

        All tokens are computed, whether or not `patches` asks for them: the mean needs each.
        """
        assert drop is None and not set(blocks) - {self.depth - 1}
        if hidden is not None:
            raise ValueError(
                "ConvViT has no mask token: set mask.kind=drop, or choose a plain ViT as backbone"
            )
        if attention:
            raise ValueError(
                "ConvViT has no class token whose attention could guide a mask: choose a strategy without "
                "scores, or a plain ViT"
            )
        raw, fused = self.vit.stages(images, visible=visible)
        tokens = self.vit.norm(raw + fused)
        return tokens, {"cls": [tokens.mean(1)], "blocks": [raw for _ in blocks]}


class ConvBackbone(Settings):
    """ConvViT (ConvMAE, arXiv:2205.03892); the defaults are ConvViT-B.

    image_size: pixels, one number or (height, width); sets the grid of the fixed positions
    dims, depths, mlp_ratios: of the two convolution stages and the ViT
    strides: of the three patch embeddings; their product is the patch size
    """

    kind: Literal["convvit"] = "convvit"
    image_size: PositiveInt | tuple[PositiveInt, PositiveInt] = 224
    dims: Triple = (256, 384, 768)
    depths: Triple = (2, 2, 11)
    heads: PositiveInt = 12
    mlp_ratios: tuple[PositiveFloat, PositiveFloat, PositiveFloat] = (4.0, 4.0, 4.0)
    strides: Triple = (4, 2, 2)
    drop_path: float = Field(0.0, ge=0, le=0)

    @model_validator(mode="after")
    def _fits(self) -> "ConvBackbone":
        if self.dims[2] % self.heads or self.dims[2] % 4:
            raise ValueError(
                f"backbone.dims={self.dims}: the last must be a multiple of heads={self.heads} and of 4"
            )
        return self

    @property
    def name(self) -> str:
        """What a report calls it."""
        return "convvit"

    @property
    def patch_size(self) -> int:
        """Pixels of a patch's side."""
        return self.strides[0] * self.strides[1] * self.strides[2]

    def from_scratch(self) -> "ConvBackbone":
        """Itself: it has no weights to start from."""
        return self

    def build(self, *, seed: int, mask_token: bool = False, classes: int = 0) -> ConvVisionBackbone:
        """The network on the CPU, in float32, its weights a function of the arguments."""
        if mask_token or classes:
            raise ValueError("ConvViT serves methods that drop patches and need no classifier: mae and dmjd")
        size = (self.image_size,) * 2 if isinstance(self.image_size, int) else self.image_size
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            vit = ConvViT(
                image_size=size,
                dims=self.dims,
                depths=self.depths,
                heads=self.heads,
                mlp_ratios=self.mlp_ratios,
                strides=self.strides,
            )
        return ConvVisionBackbone(vit)


def _tag(value: Any) -> str:
    kind = value.get("kind") if isinstance(value, dict) else getattr(value, "kind", None)
    return "convvit" if kind == "convvit" else "vit"


# A plain ViT needs no kind; "kind: convvit" makes the other.
AnyBackbone = Annotated[
    Annotated[Backbone, Tag("vit")] | Annotated[ConvBackbone, Tag("convvit")], Discriminator(_tag)
]
