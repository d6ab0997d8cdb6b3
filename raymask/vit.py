"""Which backbone, and how it is built: any timm `VisionTransformer` with a class token."""

from difflib import get_close_matches

import timm
import torch
from pydantic import Field, PositiveFloat, PositiveInt, model_validator
from timm.layers import Attention, PatchEmbed
from timm.models.vision_transformer import Block, VisionTransformer
from torch import nn

from pipelines.settings import Settings
from raymask.backbone import Extras, VisionBackbone

__all__ = ["Backbone", "Extras", "VisionBackbone", "fitting_names"]


class Backbone(Settings):
    """A Vision Transformer by its timm name, with what differs from that model.

    image_size: pixels, one number or (height, width); sets the native grid of the learned positions
    patch_size: pixels; None is the model's own, and so are dim, depth, heads and mlp_ratio
    drop_path: rate of the last block, rising linearly from 0 (students only: the draws are an argument of forward)
    registers: learned tokens without a meaning of their own, beside [CLS]
    pretrained: start from timm's weights
    """

    name: str = "vit_small_patch16_224"
    image_size: PositiveInt | tuple[PositiveInt, PositiveInt] = 224
    patch_size: PositiveInt | None = None
    dim: PositiveInt | None = None
    depth: PositiveInt | None = None
    heads: PositiveInt | None = None
    mlp_ratio: PositiveFloat | None = None
    drop_path: float = Field(default=0.1, ge=0, lt=1)
    registers: int = Field(default=0, ge=0)
    pretrained: bool = False

    @model_validator(mode="after")
    def _fits(self) -> "Backbone":
        if self.dim is not None and self.heads is not None and self.dim % self.heads:
            raise ValueError(f"backbone.dim={self.dim} cannot be shared by backbone.heads={self.heads}")
        shape = [key for key in ("dim", "depth", "heads", "mlp_ratio") if getattr(self, key) is not None]
        if self.pretrained and shape:
            raise ValueError(
                f"pretrained weights fit only the model's own shape: leave out backbone.{shape[0]}, "
                "or set backbone.pretrained=false"
            )
        return self

    def build(self, *, seed: int, mask_token: bool = False, classes: int = 0) -> VisionBackbone:
        """The network on the CPU, in float32; `classes` > 0 keeps timm's classifier for `vit.forward_head`.

        The weights are a function of the arguments alone. Module constructors draw from torch's global stream: it is
        seeded and put back around them, the one exception to randomness as an argument.
        """
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            vit = self._create(classes)
            if not self.pretrained:
                initialise(vit)
        return VisionBackbone(vit, drop_path=self.drop_path, mask_token=mask_token)

    def _create(self, classes: int) -> VisionTransformer:
        if not timm.is_model(self.name.split(".")[0]):
            raise ValueError(f"backbone.name={self.name!r} is not a model of timm; {_advice(self.name)}")
        height, width = (self.image_size,) * 2 if isinstance(self.image_size, int) else self.image_size
        own = {
            "patch_size": self.patch_size,
            "embed_dim": self.dim,
            "depth": self.depth,
            "num_heads": self.heads,
        }
        own |= {"mlp_ratio": self.mlp_ratio, "reg_tokens": self.registers or None}
        changes = {key: value for key, value in own.items() if value is not None}
        if not _is_vision_transformer(self.name):
            raise ValueError(f"backbone.name={self.name!r} is not a VisionTransformer; {_advice(self.name)}")
        try:
            vit = timm.create_model(
                self.name,
                pretrained=self.pretrained,
                img_size=(height, width),
                num_classes=classes,
                **changes,
            )
        except (OSError, RuntimeError) as error:
            if not self.pretrained:
                raise
            raise ValueError(
                f"the pretrained weights of {self.name!r} could not be fetched or do not fit ({type(error).__name__}): "
                "check the name and the network, or set backbone.pretrained=false"
            ) from error
        _check(vit, self.name)
        rows, columns = vit.patch_embed.patch_size
        if height % rows or width % columns:
            raise ValueError(
                f"backbone.patch_size={rows} does not divide backbone.image_size={self.image_size}: "
                "choose a multiple of it"
            )
        return vit


def initialise(vit: VisionTransformer) -> None:
    """DINO's initial weights, in place: truncated normals of std 0.02, zero biases; the patch convolution keeps its own."""
    for module in vit.modules():
        if isinstance(module, nn.Linear):
            nn.init.trunc_normal_(module.weight, std=0.02)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    for name in ("pos_embed", "cls_token", "dist_token", "reg_token"):
        if getattr(vit, name, None) is not None:
            nn.init.trunc_normal_(getattr(vit, name), std=0.02)


def fitting_names() -> list[str]:
    """The timm names among which backbones are found."""
    return timm.list_models(module="vision_transformer") + timm.list_models(module="deit")


def _is_vision_transformer(name: str) -> bool:
    return name.split(".")[0] in fitting_names()


def _advice(name: str) -> str:
    near = get_close_matches(name.split(".")[0], fitting_names(), n=3, cutoff=0.3)
    names = ", ".join(dict.fromkeys([*near, "vit_small_patch16_224"]))
    return f"use for instance {names} (all: timm.list_models(module='vision_transformer'))"


def _check(vit: nn.Module, name: str) -> None:
    """Refuses what `VisionBackbone` could not run as timm does."""
    reasons = {
        "is not a plain VisionTransformer": not isinstance(vit, VisionTransformer),
        "has no class token": getattr(vit, "cls_token", None) is None,
        "has no learned positions": getattr(vit, "pos_embed", None) is None,
        "cuts its patches in another way than one convolution": type(getattr(vit, "patch_embed", None))
        is not PatchEmbed,
        "has blocks of another kind": not all(
            type(block) is Block and type(block.attn) is Attention for block in getattr(vit, "blocks", [None])
        ),
    }
    for reason, holds in reasons.items():
        if holds:
            raise ValueError(f"backbone.name={name!r} cannot serve: it {reason}; {_advice(name)}")
