"""Opening what a run left: a run directory, one of its checkpoints, or an exported folder.

Nothing is unpickled: weights are safetensors, the rest is JSON and YAML.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from torch import Tensor, nn

from raymask import checkpoint
from raymask.backbone import VisionBackbone
from raymask.classifier import Classifier, classifier
from raymask.state import describe, matches, part
from raymask.state import tensors as read_tensors
from raymask.timm_names import apart

if TYPE_CHECKING:
    from raymask.config import Config

WEIGHTS, EXPORT_CONFIG = "model.safetensors", "config.json"


@dataclass(frozen=True)
class Trained:
    """A trained backbone and where it came from.

    run: its run directory, or None for an export
    tensors: how many of the network's tensors were loaded, in words
    classifier: what its method trained on it, or None
    classes: the names of the classes that this tells apart; none where nobody wrote them down
    """

    backbone: VisionBackbone
    config: "Config"
    step: int
    run: Path | None
    tensors: str
    classifier: Classifier | None = None
    classes: tuple[str, ...] = ()


def open_trained(path: Path | str, *, network: Literal["teacher", "student"] | None = None) -> Trained:
    """The backbone of a run (its last checkpoint), of a checkpoint, or of an export.

    network: whose; None is the one that the run evaluates, since not every method has a teacher of its own

    Raises ValueError for anything else, and unless every tensor matches.
    """
    path = Path(path)
    path = path.parent if path.name == WEIGHTS else path
    if (path / "state.json").exists():
        return _open_checkpoint(path, network)
    if (path / "config.yaml").exists():
        newest = checkpoint.latest(path / "checkpoints")
        if newest is None:
            raise ValueError(f"{path} has no checkpoint yet; raymask resume {path} goes on with the run")
        return _open_checkpoint(newest, network)
    if (path / EXPORT_CONFIG).exists() and (path / WEIGHTS).exists():
        return _open_export(path)
    raise ValueError(
        f"{path} is no run directory, no checkpoint and no export; "
        "give RUN, RUN/checkpoints/step_N or RUN/export/teacher"
    )


def _open_checkpoint(folder: Path, network: str | None) -> Trained:
    from raymask.config import build

    state = describe(folder)
    config = build(state["config"])
    weights = part(folder, "model")
    network = network or config.evaluate.network
    prefix = f"{network}.backbone.vit."
    own = _below(weights, prefix)
    if not own:
        networks = sorted({name.split(".")[0] for name in weights if ".backbone.vit." in name})
        raise ValueError(f"{folder} holds no {network} backbone; it holds {', '.join(networks) or 'none'}")
    backbone = config.backbone.from_scratch().build(seed=config.run.seed)
    tensors = load_strictly(backbone.vit, own, where=folder / WEIGHTS)
    learned = getattr(config.method, "classes", None) is not None and network == "student"
    head = _below(weights, f"{network}.head.") if learned else {}
    run = folder.parent.parent
    return Trained(
        backbone.eval(),
        config,
        int(state["step"]),
        run if (run / "config.yaml").exists() else None,
        tensors,
        _classifier(backbone, head, where=folder / WEIGHTS),
        tuple(state.get("classes", ())),
    )


def _open_export(folder: Path) -> Trained:
    from raymask.config import build

    said = json.loads((folder / EXPORT_CONFIG).read_text())
    about = said.get("raymask")
    if about is None:
        raise ValueError(f"{folder / EXPORT_CONFIG} was not written by raymask export")
    config = build(about["config"])
    backbone = config.backbone.from_scratch().build(seed=config.run.seed)
    own, head = apart(read_tensors(folder / WEIGHTS))
    tensors = load_strictly(backbone.vit, own, where=folder / WEIGHTS)
    return Trained(
        backbone.eval(),
        config,
        about["step"],
        None,
        tensors,
        _classifier(backbone, head, where=folder / WEIGHTS),
        tuple(said.get("label_names", ())),
    )


def _classifier(backbone: VisionBackbone, weights: dict[str, Tensor], *, where: Path) -> Classifier | None:
    """The classifier with these weights; None for none."""
    if not weights:
        return None
    head = classifier(backbone, len(weights["cls.bias"]), seed=0)
    load_strictly(head, weights, where=where)
    return head.eval()


def _below(weights: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): t for name, t in weights.items() if name.startswith(prefix)}


def load_strictly(module: nn.Module, weights: dict[str, Tensor], *, where: Path) -> str:
    """Loads all of `weights`; says how many. Raises ValueError naming what does not match."""
    expected = module.state_dict()
    matches(weights, expected, where=where)
    module.load_state_dict(weights, strict=True)
    return f"{len(weights)}/{len(expected)} tensors"
