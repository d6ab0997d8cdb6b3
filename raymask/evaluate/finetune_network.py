"""A pretrained backbone under a fresh classifier, and the rates of its layers."""

from copy import deepcopy
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from raymask.backbone import VisionBackbone
from raymask.convbackbone import ConvVisionBackbone
from raymask.optim import TOKENS

# b: images   c: classes   depth: blocks

# Of what is below the first block. ConvViT's convolution stages are among it, as released.
BELOW = ("patch_embed", "norm_pre", "blocks1", "blocks2", *TOKENS)


class FineTuned(nn.Module):
    """The mean of the last block's patches, a layer norm and a linear classifier, both fresh."""

    def __init__(self, backbone: VisionBackbone, classes: int, *, drop_path: float, seed: int) -> None:
        super().__init__()
        vit: Any = deepcopy(backbone.vit).float()
        if isinstance(backbone, ConvVisionBackbone):
            self.backbone: VisionBackbone = ConvVisionBackbone(vit)  # drops no paths
        else:
            self.backbone = VisionBackbone(vit, drop_path=drop_path)
        self.norm = nn.LayerNorm(backbone.dim, eps=1e-6)
        self.head = nn.Linear(backbone.dim, classes)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            nn.init.trunc_normal_(self.head.weight, std=2e-5)
        nn.init.zeros_(self.head.bias)
        for name, parameter in self.named_parameters():
            parameter.requires_grad_(layer_of(name, self.backbone.depth) is not None)

    def forward(
        self, images: Float[Tensor, "b 3 height width"], *, drop: Float[Tensor, "depth 2 b"] | None = None
    ) -> Float[Tensor, "b c"]:
        """Logits."""
        _, extras = self.backbone(images, drop=drop, blocks=(self.backbone.depth - 1,))
        return self.head(self.norm(extras["blocks"][0][:, self.backbone.prefix :].mean(1)))


def layer_of(name: str, depth: int) -> int | None:
    """Which layer a parameter belongs to, from 0 below the blocks to depth + 1 at the top; None for those
    that have no part: the pretrained final norm and what ConvViT fuses in behind its last block."""
    if not name.startswith("backbone."):
        return depth + 1
    inside = name.removeprefix("backbone.vit.").split(".")
    if inside[0] in BELOW or inside[0].startswith("patch_embed"):
        return 0
    return int(inside[1]) + 1 if inside[0] in ("blocks", "blocks3") else None


def layered(network: FineTuned, *, decay: float, weight_decay: float) -> list[dict]:
    """Groups of parameters for an optimiser, each with the `share` of the top layer's rate that is its own.

    Biases, 1-d tensors, positions and tokens are not decayed.
    """
    depth = network.backbone.depth
    groups: dict[tuple[int, bool], dict] = {}
    for name, parameter in network.named_parameters():
        layer = layer_of(name, depth)
        if layer is None:
            continue
        bare = parameter.ndim == 1 or name.endswith(".bias") or name.rsplit(".", 1)[-1] in TOKENS
        fresh = {
            "params": [],
            "share": decay ** (depth + 1 - layer),
            "weight_decay": 0.0 if bare else weight_decay,
        }
        groups.setdefault((layer, bare), fresh)["params"].append(parameter)
    return list(groups.values())


def set_rates(optimiser: torch.optim.Optimizer, rate: float) -> None:
    """The top layer's rate, and below it each layer's share of it."""
    for group in optimiser.param_groups:
        group["lr"] = rate * group["share"]
