"""The student's pass over a batch of images: tokens, attention, and inner tokens to compare."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from raymask.backbone import VisionBackbone
from raymask.masks import Masks, hide_pixels

# r: rows (an image in a view)   n: patches   k: patches that the student computes   t: tokens   d: width


@dataclass(frozen=True)
class Studied:
    """What came of the pass.

    attention: of the first tokens (`attention_tokens`; 1 is [CLS]) in the last block, over all patches; 0 for
        those that the student did not see. With its gradient where that was asked for
    layers: patch tokens as the blocks asked for left them, in the order asked
    """

    tokens: Float[Tensor, "r t d"]
    attention: Float[Tensor, "r n"] | None
    layers: tuple[Float[Tensor, "r k d"], ...]


def study(
    backbone: VisionBackbone,
    images: Float[Tensor, "r 3 h w"],
    masks: Masks | None,
    *,
    kind: str,
    drop: Float[Tensor, "depth 2 r"] | None,
    attention: bool,
    attention_gradient: bool = False,
    attention_tokens: int = 1,
    blocks: tuple[int, ...] = (),
) -> Studied:
    """One pass of the student, with its own patches hidden as `kind` says where there are masks."""
    hidden = None if masks is None else masks.hidden.flatten(0, 1)
    visible = masks.visible().flatten(0, 1) if masks is not None and kind == "drop" else None
    if hidden is not None and kind == "pixel":
        images = hide_pixels(images, hidden, backbone.patch_size)
    tokens, extras = backbone(
        images,
        hidden=hidden if kind == "token" else None,
        visible=visible,
        drop=drop,
        attention=attention,
        attention_gradient=attention_gradient,
        attention_tokens=attention_tokens,
        blocks=blocks,
    )
    row = extras.get("attention")
    if row is not None and visible is not None:
        rows, columns = backbone.grid(*images.shape[-2:])
        row = row.new_zeros(len(row), rows * columns).scatter(1, visible, row)
    by_block = dict(zip(sorted(set(blocks)), extras["blocks"]))
    return Studied(tokens, row, tuple(by_block[block][:, backbone.prefix :] for block in blocks))


def attention_at(row: Tensor | None, places: Int[Tensor, "r kept"] | None) -> Float[Tensor, "r kept"] | None:
    """The attention to some places of each row [r, n], to all without; None where none was asked for."""
    return row if row is None or places is None else row.gather(1, places)


def at(layers: tuple[Tensor, ...], places: Int[Tensor, "r kept"] | None) -> tuple[Tensor, ...]:
    """The tokens at some places of each row; at all without."""
    if places is None:
        return layers
    return tuple(t.gather(1, places[:, :, None].expand(-1, -1, t.shape[2])) for t in layers)


def wide(tensor: Tensor) -> Tensor:
    """Half precision is for matrix products; losses are summed in float32 or better."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))
