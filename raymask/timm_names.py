"""A backbone and its classifiers as one network of timm's, by names: put together, and taken apart again."""

from torch import Tensor, nn

from raymask.backbone import VisionBackbone

Tensors = dict[str, Tensor]

_HEADS = {"cls.": "head.", "dist.": "head_dist."}  # ours: timm's


def together(backbone: Tensors, classifier: Tensors) -> Tensors:
    """The weights of timm's network, from those of its body and of our classifier."""
    heads = {
        timms + name.removeprefix(ours): tensor
        for name, tensor in classifier.items()
        for ours, timms in _HEADS.items()
        if name.startswith(ours)
    }
    return backbone | heads


def apart(weights: Tensors) -> tuple[Tensors, Tensors]:
    """The weights of the body, and those of our classifier (none of a network without)."""
    heads = {
        ours + name.removeprefix(timms): tensor
        for name, tensor in weights.items()
        for ours, timms in _HEADS.items()
        if name.startswith(timms)
    }
    return {name: t for name, t in weights.items() if not name.startswith(tuple(_HEADS.values()))}, heads


def heads_agree(backbone: VisionBackbone) -> bool:
    """Whether timm's head reads what our classifier does: [CLS], or the mean patch, after the final norm.

    It is another one in EVA and BEiT 3, which have [CLS] and normalise the mean patch instead.
    """
    vit = backbone.vit
    return isinstance(vit.fc_norm, nn.Identity) and vit.global_pool == (
        "token" if backbone.has_cls else "avg"
    )
