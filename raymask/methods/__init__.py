"""Methods: what is learnt from the crops. The loop knows them only by the contract in `method.py`.

A new method is a file here with its Settings and its Method, and a line in the table below.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from pipelines.settings import Settings
from raymask.methods.dino import Dino, DinoMethod
from raymask.methods.dmjd import Dmjd, DmjdMethod
from raymask.methods.mae import Mae, MaeMethod
from raymask.methods.maskedkd import MaskedKD, MaskedKDMethod
from raymask.methods.method import Method

if TYPE_CHECKING:
    from raymask.config import Config

__all__ = ["Method", "MethodSettings", "build_method"]

MethodSettings = Annotated[Dino | MaskedKD | Mae | Dmjd, Field(discriminator="kind")]

# `Any`: that a key's builder gets settings of its kind is more than a type checker can follow.
_BUILDERS: dict[type[Settings], Callable[[Any], Method]] = {
    Dino: lambda config: DinoMethod(config.method, config.backbone, config.mask, seed=config.run.seed),
    MaskedKD: lambda config: MaskedKDMethod(
        config.method, config.backbone, config.mask, config.data.crops, seed=config.run.seed
    ),
    Mae: lambda config: MaeMethod(
        config.method, config.backbone, config.mask, config.data.crops, seed=config.run.seed
    ),
    Dmjd: lambda config: DmjdMethod(
        config.method, config.backbone, config.mask, config.data.crops, seed=config.run.seed
    ),
}


def build_method(config: Config) -> Method:
    """The method that `config.method` describes, on the CPU, its weights a function of the config alone."""
    if config.backbone.kind == "convvit" and not isinstance(config.method, Mae):
        raise ValueError(
            f"ConvViT has no class token, which method.kind={config.method.kind} learns from: "
            "choose method.kind=mae or dmjd, or a plain ViT as backbone"
        )
    return _BUILDERS[type(config.method)](config)
