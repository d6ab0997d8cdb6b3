"""A trained backbone as a folder that plain timm opens: model.safetensors and config.json.

What was trained on labels keeps its classifiers, under timm's names, and is a classifier there.
`timm.create_model("local-dir:FOLDER", pretrained=True)` is all a user of it needs; nothing of raymask.
"""

import json
import shutil
from pathlib import Path
from typing import Any, Literal

import timm
import torch
from safetensors.torch import save_file
from timm.models.vision_transformer import VisionTransformer

from raymask import __version__, export_convvit
from raymask.classifier import Classifier, is_distilled
from raymask.timm_names import heads_agree, together
from raymask.trained import EXPORT_CONFIG, WEIGHTS, Trained, load_strictly, open_trained, read_tensors
from raymask.vit import Backbone

TOLERANCE = 1e-4  # float32, two implementations of the same sums


def export(
    path: Path | str, *, out: Path | str | None = None, network: Literal["teacher", "student"] | None = None
) -> Path:
    """Writes the backbone of a run or checkpoint and compares it with plain timm; returns the folder.

    Raises ValueError for a folder that exists and is no export, and where timm gives other features.
    """
    trained = open_trained(path, network=network)
    network = network or trained.config.evaluate.network
    folder = _place(path, trained, out, network)
    beside = folder.with_name(f".{folder.name}.writing")
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir(parents=True)
    try:
        if trained.config.backbone.kind == "convvit":
            export_convvit.write(trained, beside, network=network)
            export_convvit.verify(trained.backbone, beside)
        else:
            write(trained, beside, network=network)
            verify(trained, beside)
        shutil.rmtree(folder, ignore_errors=True)
        beside.replace(folder)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return folder


def _place(path: Path | str, trained: Trained, out: Path | str | None, network: str) -> Path:
    """The folder to write: `out`, or one inside the run. Raises ValueError for one of something else."""
    if out is not None:
        folder = Path(out)
    elif trained.run is not None:
        folder = trained.run / "export" / network
    else:
        raise ValueError(
            f"{path} lies in no run directory, so the export has no place of its own: give out=FOLDER"
        )
    if folder.exists() and not _is_export(folder):
        raise ValueError(f"{folder} exists and is not an export: give another out=FOLDER")
    return folder


def write(trained: Trained, folder: Path, *, network: str) -> None:
    """The weights under timm's names, and what timm and a reader need to know about them."""
    vit, settings = trained.backbone.vit, trained.config.backbone
    assert isinstance(settings, Backbone), "a ConvViT has a writer of its own"
    head = _classifier(trained)
    whole = vit.state_dict() if head is None else together(vit.state_dict(), head.state_dict())
    weights = {name: tensor.detach().float().cpu().contiguous() for name, tensor in whole.items()}
    classes = 0 if head is None else head.classes
    named = {"label_names": list(trained.classes)} if classes and trained.classes else {}
    save_file(weights, folder / WEIGHTS, metadata={"format": "pt"})
    height, width = (
        side * patch for side, patch in zip(trained.backbone.native, trained.backbone.patch_size)
    )
    about = {
        "architecture": settings.name.split(".")[0],
        "num_classes": classes,
        **named,
        "num_features": vit.num_features,
        "global_pool": vit.global_pool,
        "model_args": arguments(settings),
        "pretrained_cfg": {
            "input_size": [3, height, width],
            "fixed_input_size": True,
            "interpolation": "bicubic",
            "crop_pct": _crop_share(trained, max(height, width)),
            "mean": list(trained.config.data.crops.mean),
            "std": list(trained.config.data.crops.std),
            "num_classes": classes,
            "first_conv": "patch_embed.proj",
            "classifier": ["head", "head_dist"] if is_distilled(trained.backbone) else "head",
        },
        "raymask": {
            "version": __version__,
            "network": network,
            "run": trained.config.run.name,
            "step": trained.step,
            "config": trained.config.model_dump(mode="json"),
        },
    }
    (folder / EXPORT_CONFIG).write_text(json.dumps(about, indent=2) + "\n")


def _classifier(trained: Trained) -> Classifier | None:
    """What timm can classify with, too."""
    return trained.classifier if heads_agree(trained.backbone) else None


def _crop_share(trained: Trained, side: int) -> float:
    """How much of the resized image the evaluated crop covers, as timm calls it crop_pct."""
    resize = trained.config.evaluate.resize
    return 224 / 256 if resize is None else (trained.config.evaluate.size or side) / resize


def arguments(settings: Backbone) -> dict[str, Any]:
    """The keyword arguments that make timm's model of that name the trained one."""
    size = settings.image_size
    named = {
        "img_size": list(size) if isinstance(size, tuple) else size,
        "patch_size": settings.patch_size,
        "embed_dim": settings.dim,
        "depth": settings.depth,
        "num_heads": settings.heads,
        "mlp_ratio": settings.mlp_ratio,
        "reg_tokens": settings.registers or None,
    }
    return {name: value for name, value in named.items() if value is not None}


def load_in_timm(folder: Path) -> VisionTransformer:
    """The exported network in plain timm. Raises ValueError unless every tensor matches."""
    about = json.loads((folder / EXPORT_CONFIG).read_text())
    asked = {"num_classes": about["num_classes"], **about["model_args"]}
    vit = timm.create_model(about["architecture"], pretrained=False, **asked)
    assert isinstance(vit, VisionTransformer)
    load_strictly(vit, read_tensors(folder / WEIGHTS), where=folder / WEIGHTS)
    vit.eval()
    return vit


@torch.no_grad()
def verify(trained: Trained, folder: Path) -> float:
    """The largest difference between our features or logits and plain timm's, of images of native size.

    Raises ValueError beyond TOLERANCE. At other sizes plain timm resamples positions by a rule of its own.
    """
    vit, backbone, head = load_in_timm(folder), trained.backbone, _classifier(trained)
    height, width = (side * patch for side, patch in zip(backbone.native, backbone.patch_size))
    images = torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(0))
    device = next(backbone.parameters()).device
    ours = backbone(images.to(device))[0].float()
    tokens = vit.forward_features(images)
    pairs = {"features": (tokens, ours)}
    if head is not None:
        pairs["logits"] = vit.forward_head(tokens), head.to(device).answer(ours)
    found = {what: float((theirs - own.cpu()).abs().max()) for what, (theirs, own) in pairs.items()}
    for what, largest in found.items():
        if not largest <= TOLERANCE:
            raise ValueError(
                f"{folder}: plain timm's {what} differ from ours by {largest:.3g} (at most {TOLERANCE})"
            )
    return max(found.values())


def _is_export(folder: Path) -> bool:
    try:
        return "raymask" in json.loads((folder / EXPORT_CONFIG).read_text())
    except (OSError, ValueError):
        return False
