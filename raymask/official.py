"""Names of tensors in the checkpoints of DINO and iBOT, and in ours. Both ways, without touching values.

Backbones there have timm's names and `masked_embed`; heads `mlp.*`, `last_layer.weight_g` and `.weight_v`.
"""

import re

from torch import Tensor

from raymask.backbone import VisionBackbone
from raymask.heads import DinoHead

State = dict[str, Tensor]

# old and new style of torch's weight normalisation
_GAIN = ("last_layer.weight_g", "last_layer.parametrizations.weight.original0")
_DIRECTION = ("last_layer.weight_v", "last_layer.parametrizations.weight.original1")


def backbone_from_official(state: State) -> State:
    """The names of `VisionBackbone` for the tensors of an official backbone."""
    return {"mask_token" if k == "masked_embed" else f"vit.{k}": v for k, v in state.items()}


def backbone_to_official(state: State) -> State:
    """The official names for the tensors of a `VisionBackbone`."""
    return {"masked_embed" if k == "mask_token" else k.removeprefix("vit."): v for k, v in state.items()}


def _for_patches(name: str) -> str:
    return name.replace("last_layer.", "last_layer_patches.")


def head_from_official(state: State) -> State:
    """The names of `DinoHead` for the tensors of an official head."""
    renamed = dict.fromkeys(_GAIN, "last_layer.gain") | dict.fromkeys(_DIRECTION, "last_layer.direction")
    renamed |= {k.replace("layer.", "layer2."): _for_patches(v) for k, v in renamed.items()}
    # a head of one layer is a bare linear layer there
    return {renamed.get(k, re.sub(r"^mlp\.(weight|bias)$", r"mlp.0.\1", k)): v for k, v in state.items()}


def head_to_official(state: State) -> State:
    """The official names for the tensors of a `DinoHead`."""
    renamed = {"last_layer.gain": _GAIN[0], "last_layer.direction": _DIRECTION[0]}
    renamed |= {_for_patches(k): v.replace("layer.", "layer2.") for k, v in renamed.items()}
    bare = not any(re.match(r"mlp\.[1-9]", k) for k in state)
    return {renamed.get(k, k.replace("mlp.0.", "mlp.") if bare else k): v for k, v in state.items()}


def load_official_backbone(backbone: VisionBackbone, state: State) -> None:
    """Loads an official backbone's tensors, strictly."""
    backbone.load_state_dict(backbone_from_official(state))


def load_official_head(head: DinoHead, state: State) -> None:
    """Loads an official head's tensors, strictly."""
    head.load_state_dict(head_from_official(state))
