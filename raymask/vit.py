"""Which backbone, and how it is built: any timm `VisionTransformer` with [CLS] or a mean of its patches."""

from difflib import get_close_matches
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import timm
import torch
from pydantic import Field, PositiveFloat, PositiveInt, model_validator
from timm.layers import Attention, PatchEmbed
from timm.models.vision_transformer import Block, VisionTransformer
from torch import nn

from pipelines.settings import Settings
from raymask.backbone import Extras, VisionBackbone
from raymask.layer import Layer
from raymask.reason import first_line

__all__ = ["Backbone", "Extras", "VisionBackbone", "fitting_names"]


class Backbone(Settings):
    """A Vision Transformer by its timm name, with what differs from that model.

    image_size: pixels, one number or (height, width); sets the native grid of the learned positions
    patch_size: pixels; None is the model's own, and so are dim, depth, heads and mlp_ratio
    drop_path: rate of the last block, rising linearly from 0; students only (forward takes the draws)
    registers: learned tokens without a meaning of their own, beside [CLS]
    pretrained: start from the weights that timm fetches for that name
    weights: start from this file instead (safetensors with timm's names)
    """

    kind: Literal["vit"] = "vit"  # a ConvViT has settings of its own (convbackbone.py)
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
    weights: Path | None = None

    @model_validator(mode="after")
    def _fits(self) -> "Backbone":
        if self.dim is not None and self.heads is not None and self.dim % self.heads:
            raise ValueError(f"backbone.dim={self.dim} cannot be shared by backbone.heads={self.heads}")
        shape = [key for key in ("dim", "depth", "heads", "mlp_ratio") if getattr(self, key) is not None]
        if self.pretrained and shape:
            raise ValueError(
                f"timm's pretrained weights fit only the model's own shape: leave out backbone.{shape[0]}, "
                "or set backbone.pretrained=false"
            )
        if self.weights is not None and not self.weights.is_file():
            raise ValueError(f"backbone.weights={str(self.weights)!r} is not a file")
        return self

    @property
    def starts_trained(self) -> bool:
        """Whether the weights come from somewhere."""
        return self.pretrained or self.weights is not None

    def from_scratch(self) -> "Backbone":
        """The same network, without weights to start from: for those that were trained since."""
        return self.model_copy(update={"pretrained": False, "weights": None})

    def _size(self) -> tuple[int, int]:
        return (self.image_size, self.image_size) if isinstance(self.image_size, int) else self.image_size

    def build(self, *, seed: int, mask_token: bool = False, classes: int = 0) -> VisionBackbone:
        """The network on the CPU, in float32; `classes` > 0 keeps timm's classifier for `vit.forward_head`.

        The weights are a function of the arguments alone. Module constructors draw from torch's global
        stream: it is seeded and put back around them, the one exception to randomness as an argument.
        """
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            vit = self._create(classes)
            if not self.starts_trained:
                initialise(vit)
        return VisionBackbone(vit, drop_path=self.drop_path, mask_token=mask_token)

    def _create(self, classes: int) -> VisionTransformer:
        if self.name.split(".")[0] not in fitting_names():
            raise ValueError(
                f"backbone.name={self.name!r} is not one of timm's VisionTransformers; {_advice(self.name)}"
            )
        outline = _outline(self.name)
        _check(outline, self.name)
        self._shares_its_width(outline)
        arguments = self._changes() | {"img_size": self._size(), "num_classes": classes, "block_fn": Layer}
        try:
            vit: Any = timm.create_model(self.name, pretrained=self.starts_trained, **arguments)
        except (OSError, RuntimeError) as error:
            if not self.starts_trained:
                raise
            raise ValueError(
                f"the weights of {self.name!r} could not be fetched or do not fit ({first_line(error)}): "
                "give a local file with timm's names as backbone.weights, or train from scratch with "
                "backbone.pretrained=false"
            ) from error
        if any(size % patch for size, patch in zip(self._size(), vit.patch_embed.patch_size)):
            raise ValueError(
                f"backbone.patch_size={vit.patch_embed.patch_size[0]} does not divide "
                f"backbone.image_size={self.image_size}: choose a multiple of it"
            )
        return vit

    def _shares_its_width(self, outline: Any) -> None:
        """Raises ValueError where the heads, given or the model's own, cannot share the width."""
        dim, heads = self.dim or outline.embed_dim, self.heads or outline.blocks[0].attn.num_heads
        if dim % heads:
            raise ValueError(
                f"{self.name!r} has backbone.dim={dim} and backbone.heads={heads}, which does not divide it: "
                "set both so that it does"
            )

    def _changes(self) -> dict[str, Any]:
        """What differs from the model of that name, in timm's words."""
        given = {
            "patch_size": self.patch_size,
            "embed_dim": self.dim,
            "depth": self.depth,
            "num_heads": self.heads,
            "mlp_ratio": self.mlp_ratio,
            "reg_tokens": self.registers or None,
            "pretrained_cfg_overlay": {"file": str(self.weights)} if self.weights else None,
        }
        return {key: value for key, value in given.items() if value is not None}


def initialise(vit: VisionTransformer) -> None:
    """DINO's initial weights, in place: truncated normals of std 0.02, zero biases.

    Norms and the patch convolution keep what their constructors gave them.
    """
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


def _outline(name: str) -> VisionTransformer:
    """The network without memory for its weights."""
    with torch.device("meta"):
        outline: Any = timm.create_model(name, num_classes=0)
    return outline


def _obstacle(vit: VisionTransformer) -> str | None:
    """Why `VisionBackbone` could not run this network as timm does; None if it can."""
    if vit.cls_token is None and (vit.global_pool != "avg" or not isinstance(vit.fc_norm, nn.Identity)):
        return "has no class token, and no mean of normalised patches instead"
    if vit.pos_embed is None:
        return "has no learned positions"
    if type(vit.patch_embed) is not PatchEmbed:
        return "does not cut its patches by one convolution"
    if any(type(block) is not Block or type(block.attn) is not Attention for block in vit.blocks):
        return "has blocks of another kind"
    return None


def _check(vit: VisionTransformer, name: str) -> None:
    if obstacle := _obstacle(vit):
        raise ValueError(f"backbone.name={name!r} cannot serve: it {obstacle}; {_advice(name)}")


def _advice(name: str) -> str:
    near = get_close_matches(name.split(".")[0], fitting_names(), n=12, cutoff=0.3)
    able = islice((other for other in near if _obstacle(_outline(other)) is None), 3)
    names = ", ".join(dict.fromkeys([*able, "vit_small_patch16_224"]))
    return f"use for instance {names} (all candidates: timm.list_models(module='vision_transformer'))"
