"""A trained ConvViT as a folder with the released parameter names, which code for ConvMAE reads.


timm has no ConvViT; `raymask.trained.open_trained(FOLDER)` opens the folder, and is what checks the export.
"""

import json
from pathlib import Path

import torch
from safetensors.torch import save_file

from raymask import __version__
from raymask.backbone import VisionBackbone
from raymask.trained import EXPORT_CONFIG, WEIGHTS, Trained, open_trained


def write(trained: Trained, folder: Path, *, network: str) -> None:
    """The weights and what a reader needs to know about them."""
    state = trained.backbone.vit.state_dict()
    weights = {name: tensor.detach().float().cpu().contiguous() for name, tensor in state.items()}
    save_file(weights, folder / WEIGHTS, metadata={"format": "pt"})
    crops = trained.config.data.crops
    about = {
        "architecture": "convvit",
        "model_args": trained.config.backbone.model_dump(mode="json", exclude={"kind"}),
        "num_features": trained.backbone.dim,
        "pretrained_cfg": {"mean": list(crops.mean), "std": list(crops.std), "interpolation": "bicubic"},
        "raymask": {
            "version": __version__,
            "network": network,
            "run": trained.config.run.name,
            "step": trained.step,
            "config": trained.config.model_dump(mode="json"),
        },
    }
    (folder / EXPORT_CONFIG).write_text(json.dumps(about, indent=2) + "\n")


@torch.no_grad()
def verify(backbone: VisionBackbone, folder: Path) -> None:
    """Raises ValueError unless the folder opens again and gives the same features."""
    again = open_trained(folder).backbone
    height, width = (side * patch for side, patch in zip(backbone.native, backbone.patch_size))
    images = torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(0))
    device = next(backbone.parameters()).device
    ours, theirs = backbone(images.to(device))[0].float().cpu(), again(images)[0]
    if not torch.allclose(ours, theirs, rtol=0, atol=1e-4):
        raise ValueError(
            f"{folder}: the exported features differ by {float((ours - theirs).abs().max()):.3g}"
        )
