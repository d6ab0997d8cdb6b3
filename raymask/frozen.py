"""Which frozen network teaches or chooses, and how it is built: a timm name, or what an earlier run left."""

from pathlib import Path
from typing import Any, Literal

import timm
import torch
from pydantic import Field, model_validator
from timm.models import is_model_in_modules
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from pipelines.crops import IMAGENET_MEAN, IMAGENET_STD
from pipelines.settings import Settings
from raymask.reason import first_line
from raymask.state import part, tensors
from raymask.teachers import Frozen
from raymask.timm_names import heads_agree, together
from raymask.trained import EXPORT_CONFIG, load_strictly, open_trained

Size = tuple[int, int]
Colour = tuple[float, float, float]
Colours = tuple[Colour, Colour]  # mean and deviation of levels in 0..1, per channel
IMAGENET: Colours = (IMAGENET_MEAN, IMAGENET_STD)


class FrozenNetwork(Settings):
    """A frozen network.

    name: any timm model; patches can be dropped for VisionTransformers and CaiT
    pretrained: with timm's weights
    weights: a file of safetensors under timm's names; or a run, a checkpoint or an export, whose student
        teaches (and to choose patches also one without labels), which says by itself what network it is
    image_size: pixels a side that this network sees; None: what the student sees
    normalisation: images come as the student gets them (the released code), or normalised as this network was
        trained on them
    patch_size, dim, depth, heads: where a VisionTransformer differs from its name
    """

    name: str = "deit_small_patch16_224.fb_in1k"
    pretrained: bool = False
    weights: str | None = None
    image_size: int | Size | None = None
    normalisation: Literal["crops", "own"] = "crops"
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

    def build(
        self, *, image_size: Size, seed: int, classes: int | None, colours: Colours = IMAGENET
    ) -> Frozen:
        """The network, frozen.

        classes: what its logits stand for; None where only attention is asked
        image_size, colours: pixels a side of the images that come, and how they are normalised
        """
        size = _pair(self.image_size) or image_size
        if self.weights and Path(self.weights).is_dir():
            folder = Path(self.weights)
            vit = backbone_of(folder) if classes is None else student_of(folder)
            vit.set_input_size(size)  # positions by timm's rule: from here on it is plain timm
            network: nn.Module = vit
        else:
            network = self._from_timm(size, seed, classes)
        has = getattr(network, "num_classes", None)
        if classes is not None and has != classes:
            raise ValueError(
                f"the teacher tells {has} classes apart, but the student and the data have {classes}: "
                "a teacher must have learned the same classes"
            )
        own = recolouring(colours, self._known_colours()) if self.normalisation == "own" else None
        return Frozen(network, image_size=size if size != image_size else None, colours=own)

    def check_sight(self, frozen: Frozen, image_size: Size, *, name: str) -> None:
        """Raises ValueError where what was built, `name` in the config, fails on images of this size.

        One blank image is tried: many networks of timm are made for one size, and only their pass says so.
        """
        try:
            frozen(torch.zeros(1, 3, *image_size))
        except (AssertionError, RuntimeError, ValueError) as error:
            known: Any = timm.get_pretrained_cfg(self.name, allow_unregistered=True)
            height, width = image_size if known is None else known.input_size[1:]
            tried, reason = frozen.image_size or image_size, first_line(error).rstrip(".")
            meant = f"{height}" if height == width else f"[{height},{width}]"
            remedy = f"set {name}.image_size={meant}, to which its images are then resized"
            raise ValueError(
                f"{name} cannot look at images of {tried[0]}x{tried[1]} pixels ({reason}): "
                + (remedy if (height, width) != tuple(tried) else f"choose another {name}.name")
            ) from error

    def remarks(self, name: str, *, colours: Colours) -> list[str]:
        """A sentence where a network that is `name` in the config learned nothing, or from other colours."""
        if self.is_untrained:
            return [
                "the teacher is untrained: its logits are noise, good for a trial of the machinery only; "
                f"give {name}.weights=RUN of a run that learned labels, or {name}.pretrained=true"
            ]
        mean, std = self._known_colours()
        same = all(abs(a - b) < 1e-3 for a, b in zip((*mean, *std), (*colours[0], *colours[1])))
        if same or self.normalisation == "own":
            return []
        return [
            f"{name} learned from images of mean {mean} and deviation {std}, and gets those of data.crops, "
            f"as in the released code: {name}.normalisation=own gives it its own"
        ]

    def _known_colours(self) -> Colours:
        """How the images were normalised that this network was trained on."""
        if self.weights and Path(self.weights).is_dir():
            crops = open_trained(self.weights).config.data.crops
            return crops.mean, crops.std
        known: Any = timm.get_pretrained_cfg(self.name, allow_unregistered=True)
        return IMAGENET if known is None else (known.mean, known.std)

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


def recolouring(ours: Colours, theirs: Colours) -> tuple[Tensor, Tensor]:
    """Factor and offset that turn images normalised our way into theirs."""
    (mean, std), (their_mean, their_std) = (
        [torch.tensor(c, dtype=torch.float64).view(3, 1, 1) for c in pair] for pair in (ours, theirs)
    )
    factor, offset = std / their_std, (mean - their_mean) / their_std
    return factor.float(), offset.float()


def backbone_of(folder: Path) -> VisionTransformer:
    """The backbone of a run, checkpoint or export of any method: its moving average where there is one."""
    if (folder / EXPORT_CONFIG).exists():
        return open_trained(folder).backbone.vit
    averaged = bool(_below(part(_newest(folder), "model"), "teacher.backbone.vit."))
    return open_trained(folder, network="teacher" if averaged else "student").backbone.vit


def student_of(folder: Path) -> VisionTransformer:
    """The student of a run, checkpoint or export with its classifiers, as a plain timm network."""
    trained = open_trained(folder, network="student")
    if trained.classifier is None:
        raise ValueError(f"{folder} holds no classifier: a teacher must come from a run that learned labels")
    if not heads_agree(trained.backbone):
        raise ValueError(
            f"{folder} cannot teach: timm's {trained.config.backbone.name} classifies another token than the "
            "run's classifier does; train the teacher on another backbone"
        )
    shape = trained.config.backbone.from_scratch()
    vit = shape.build(seed=0, classes=trained.classifier.classes).vit
    weights = together(trained.backbone.vit.state_dict(), trained.classifier.state_dict())
    load_strictly(vit, weights, where=folder)
    return vit


def _below(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): t for name, t in state.items() if name.startswith(prefix)}


def _create(name: str, changes: dict[str, Any], size: Size, pretrained: bool) -> nn.Module:
    """timm's model; networks of patches are given the size of the images, whose positions then fit."""
    if is_model_in_modules(name.split(".")[0], ["vision_transformer", "deit", "cait"]):
        changes = changes | {"img_size": size}
    try:
        return timm.create_model(name, pretrained=pretrained, **changes)
    except AssertionError as error:  # timm's own checks: heads that do not divide the width
        raise ValueError(f"the frozen network {name!r} cannot be built with {changes}: {error}") from error
    except TypeError as error:
        raise ValueError(
            f"{name!r} has no setting of its own for {', '.join(changes)}: patch_size, dim, depth and heads "
            "are for VisionTransformers and CaiT, so leave them null"
        ) from error
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
