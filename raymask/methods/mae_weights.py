"""The weights that masked autoencoders start from."""

import torch
from torch import nn

from raymask.backbone import VisionBackbone
from raymask.sincos import sincos_positions


@torch.no_grad()
def initialise(module: nn.Module, *, seed: int) -> None:
    """MAE's initial weights, in place: Xavier-uniform linear maps and last patch embedding, zero biases.

    Class, register and mask tokens are normal with deviation 0.02; other convolutions keep torch's own
    weights.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for name, part in module.named_modules():
            if isinstance(part, nn.Linear):
                nn.init.xavier_uniform_(part.weight)
                if part.bias is not None:
                    nn.init.zeros_(part.bias)
            elif name.endswith(("patch_embed.proj", "patch_embed3.proj")):
                nn.init.xavier_uniform_(part.weight.view(len(part.weight), -1))
        for name, parameter in module.named_parameters():
            if name.endswith(("cls_token", "reg_token", "mask_token")):
                nn.init.normal_(parameter, std=0.02)


@torch.no_grad()
def fix_positions(body: VisionBackbone, *, trained: bool) -> None:
    """The encoder's positions become sines and cosines, but for trained weights', and never learn."""
    table = body.vit.pos_embed
    assert table is not None
    if not trained:
        prefix = table.shape[1] - body.native[0] * body.native[1]
        table.copy_(sincos_positions(table.shape[2], body.native, prefix=prefix)[None])
    table.requires_grad_(False)
