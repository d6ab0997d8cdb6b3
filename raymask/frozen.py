"""Which frozen network teaches or chooses, and how it is built: a timm name, or what an earlier run left."""

from pathlib import Path
from typing import Any

import timm
import torch
from pydantic import Field, model_validator
from timm.models import is_model_in_modules
from torch import Tensor, nn

from pipelines.settings import Settings
from raymask.state import tensors
from raymask.teachers import Frozen
from raymask.trained import WEIGHTS, load_strictly

Size = tuple[int, int]


class FrozenNetwork(Settings):
    """A frozen network.

    name: any timm model; patches can be dropped for VisionTransformers and CaiT
    pretrained: with timm's weights
    weights: a file of safetensors under timm's names, or a run or checkpoint of this project whose student is
    to
        teach (it then says by itself which network it is, and `name` is not used)
    image_size: pixels a side that this network sees; None: what the student sees
    patch_size, dim, depth, heads: where a VisionTransformer differs from its name
    """

    name: str = "deit_small_patch16_224.fb_in1k"
    pretrained: bool = False
    weights: str | None = None
    image_size: int | Size | None = None
    patch_size: int | None = Field(default=None, ge=1)
    dim: int | None = Field(default=None, ge=1)
    depth: int | None = Field(default=None, ge=1)
    heads: int | None = Field(default=None, ge=1)

    @model_validator(mode="after")
    def _one_source(self) -> "FrozenNetwork":
        if self.pretrained and self.weights:
            raise ValueError("pretrained weights or a file of weights: give one of them")
        return self

    @property
    def is_untrained(self) -> bool:
        """Whether nothing was ever learned: its logits are noise, good for a trial of the machinery only."""
        return not (self.pretrained or self.weights)

    def build(self, *, image_size: Size, seed: int, classes: int | None) -> Frozen:
        """The network, frozen. `classes`: what its logits must stand for; None where they do not matter."""
        size = _pair(self.image_size) or image_size
        network = (
            self._from_run(size)
            if self.weights and Path(self.weights).is_dir()
            else self._from_timm(size, seed, classes)
        )
        has = getattr(network, "num_classes", None)
        if classes is not None and has != classes:
            raise ValueError(
                f"the teacher tells {has} classes apart, but the student and the data have {classes}: "
                "a teacher must have learned the same classes"
            )
        return Frozen(network, image_size=size if size != image_size else None)

    def _from_timm(self, size: Size, seed: int, classes: int | None) -> nn.Module:
        if not timm.is_model(self.name.split(".")[0]):
            raise ValueError(f"the frozen network's name {self.name!r} is not a model of timm")
        state = tensors(Path(self.weights)) if self.weights else None
        own: dict[str, Any] = {"patch_size": self.patch_size, "embed_dim": self.dim, "depth": self.depth}
        own |= {"num_heads": self.heads, "num_classes": _classes_of(state) if state else None}
        if self.is_untrained and classes is not None:
            own["num_classes"] = classes
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network = _create(
                self.name, {k: v for k, v in own.items() if v is not None}, size, self.pretrained
            )
        if state is not None:
            load_strictly(network, state, where=Path(self.weights or ""))
        return network

    def _from_run(self, size: Size) -> nn.Module:
        """The student of a run of this project, with its classifier, as a plain timm network."""
        folder = _newest(Path(self.weights or ""))
        from raymask.config import read  # config reads the settings of this file

        config = read(folder.parent.parent / "config.yaml")
        state = tensors(folder / WEIGHTS)
        head = {
            name.removeprefix("student.head.cls."): t
            for name, t in state.items()
            if name.startswith("student.head.cls.")
        }
        if not head:
            raise ValueError(
                f"{folder} holds no classifier: a teacher must come from a run that learned labels"
            )
        backbone = config.backbone.model_copy(update={"pretrained": False})
        vit = backbone.build(seed=0, classes=len(head["bias"])).vit
        own = {
            name.removeprefix("student.backbone.vit."): t
            for name, t in state.items()
            if name.startswith("student.backbone.vit.")
        }
        own |= {f"head.{name}": t for name, t in head.items()}
        if hasattr(vit, "head_dist"):
            own |= {f"head_dist.{name}": state[f"student.head.dist.{name}"] for name in head}
        load_strictly(vit, own, where=folder)
        vit.set_input_size(size)
        return vit


def _create(name: str, changes: dict[str, Any], size: Size, pretrained: bool) -> nn.Module:
    """timm's model; networks of patches are given the size of the images, whose positions then fit."""
    if is_model_in_modules(name.split(".")[0], ["vision_transformer", "deit"]):
        changes = changes | {"img_size": size}
    elif is_model_in_modules(name.split(".")[0], ["cait"]):
        changes = changes | {"img_size": size[0]}
    try:
        return timm.create_model(name, pretrained=pretrained, **changes)
    except (OSError, RuntimeError) as error:
        if not pretrained:
            raise
        raise ValueError(
            f"the pretrained weights of {name!r} could not be fetched or do not fit "
            f"({type(error).__name__}): check the name and the network, or give a file of weights"
        ) from error


def _newest(folder: Path) -> Path:
    from raymask import checkpoint

    if (folder / "state.json").exists():
        return folder
    newest = checkpoint.latest(folder / "checkpoints") if (folder / "checkpoints").exists() else None
    if newest is None:
        raise ValueError(f"{folder} is no run or checkpoint to take a teacher from")
    return newest


def _classes_of(state: dict[str, Tensor]) -> int | None:
    heads = [
        state[name].shape[0]
        for name in ("head.weight", "head.fc.weight", "fc.weight", "classifier.weight")
        if name in state
    ]
    return heads[0] if heads else 0


def _pair(size: int | Size | None) -> Size | None:
    return (size, size) if isinstance(size, int) else size
