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
from raymask.state import describe, matches, part
from raymask.state import tensors as read_tensors

if TYPE_CHECKING:
    from raymask.config import Config

WEIGHTS, EXPORT_CONFIG = "model.safetensors", "config.json"


@dataclass(frozen=True)
class Trained:
    """A trained backbone and where it came from.

    run: its run directory, or None for an export
    tensors: how many of the network's tensors were loaded, in words
    """

    backbone: VisionBackbone
    config: "Config"
    step: int
    run: Path | None
    tensors: str


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
    own = {name.removeprefix(prefix): tensor for name, tensor in weights.items() if name.startswith(prefix)}
    if not own:
        networks = sorted({name.split(".")[0] for name in weights if ".backbone.vit." in name})
        raise ValueError(f"{folder} holds no {network} backbone; it holds {', '.join(networks) or 'none'}")
    backbone = config.backbone.build(seed=config.run.seed)
    tensors = load_strictly(backbone.vit, own, where=folder / WEIGHTS)
    run = folder.parent.parent
    return Trained(
        backbone.eval(), config, int(state["step"]), run if (run / "config.yaml").exists() else None, tensors
    )


def _open_export(folder: Path) -> Trained:
    from raymask.config import build

    about = json.loads((folder / EXPORT_CONFIG).read_text()).get("raymask")
    if about is None:
        raise ValueError(f"{folder / EXPORT_CONFIG} was not written by raymask export")
    config = build(about["config"])
    backbone = config.backbone.build(seed=config.run.seed)
    tensors = load_strictly(backbone.vit, read_tensors(folder / WEIGHTS), where=folder / WEIGHTS)
    return Trained(backbone.eval(), config, about["step"], None, tensors)


def load_strictly(module: nn.Module, weights: dict[str, Tensor], *, where: Path) -> str:
    """Loads all of `weights`; says how many. Raises ValueError naming what does not match."""
    expected = module.state_dict()
    matches(weights, expected, where=where)
    module.load_state_dict(weights, strict=True)
    return f"{len(weights)}/{len(expected)} tensors"
