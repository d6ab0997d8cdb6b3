"""The optimiser: AdamW with DINO's parameter groups, schedules, per-tensor clip and frozen last layer."""

from typing import Literal

import torch
from jaxtyping import Float
from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, model_validator
from torch import Tensor, nn

from pipelines.settings import Settings
from raymask.epoch_cosine import EpochCosine
from raymask.iteration_cosine import IterationCosine
from raymask.progress import Progress
from raymask.schedules import Cosine, Fraction, Schedule, WarmupCosine
from raymask.sharded import local, norms


class Optim(Settings):
    """AdamW as in the official DINO code.

    base_lr: peak learning rate for 256 images a batch; it grows in proportion to the batch, `min_lr` does not
    lr_rule: the warm-up and cosine of whose code: DINO's and MAE's by step, DeiT's by epoch and an epoch late
    lr_epochs: how many values DeiT's rule takes over the training; null is one an epoch
    start_lr: where the warm-up begins
    warmup: share of the training over which the learning rate rises from `start_lr`
    weight_decay: of all but biases and 1-d tensors
    decay_tokens: also of positions, class, distillation, register and mask tokens (timm does not)
    clip: largest L2 norm of the gradient of a parameter tensor, each by itself; None does not clip
    freeze_last_layer: epochs in which the prototypes of DINO and iBOT are neither moved nor decayed
    """

    base_lr: NonNegativeFloat = 5e-4
    min_lr: NonNegativeFloat = 1e-6
    lr_rule: Literal["dino", "mae", "deit"] = "dino"
    lr_epochs: PositiveInt | None = None
    start_lr: NonNegativeFloat = 0.0
    warmup: Fraction = 0.1
    weight_decay: Schedule = Cosine(start=0.04, end=0.4)
    decay_tokens: bool = True
    betas: tuple[Fraction, Fraction] = (0.9, 0.999)
    eps: PositiveFloat = 1e-8
    clip: PositiveFloat | None = 3.0
    freeze_last_layer: float = Field(default=1, ge=0)

    @model_validator(mode="after")
    def _only_deit_counts_its_values(self) -> "Optim":
        if self.lr_epochs is not None and self.lr_rule != "deit":
            raise ValueError(
                f"optim.lr_epochs={self.lr_epochs} is for DeiT's rule, but optim.lr_rule={self.lr_rule}: "
                "set optim.lr_rule=deit, or leave optim.lr_epochs out"
            )
        return self

    def lr(self, global_batch: float) -> WarmupCosine | IterationCosine | EpochCosine:
        """The schedule of the learning rate for this many images a batch."""
        start, peak = self.start_lr, self.base_lr * global_batch / 256
        if self.lr_rule == "deit":
            return EpochCosine(
                start=start, peak=peak, end=self.min_lr, warmup=self.warmup, epochs=self.lr_epochs
            )
        if self.lr_rule == "mae":
            return IterationCosine(start=start, peak=peak, end=self.min_lr, warmup=self.warmup)
        return WarmupCosine(start=start, peak=peak, end=self.min_lr, warmup=self.warmup)

    def build(self, student: nn.Module) -> torch.optim.AdamW:
        """The optimiser of the student's parameters; `set_rates` belongs before each of its steps.

        Raises ValueError where prototypes are to be frozen that the student does not have.
        """
        grouped = group(student, tokens=self.decay_tokens)
        self._check_prototypes([name for members in grouped.values() for name, _ in members])
        groups = [{"params": members, "decays": decays} for decays, members in grouped.items()]
        return torch.optim.AdamW(groups, lr=0.0, betas=self.betas, eps=self.eps, weight_decay=0.0, fused=True)

    def _check_prototypes(self, names: list[str]) -> None:
        idle = (0, type(self).model_fields["freeze_last_layer"].default)  # 1 is inherited by every method
        if self.freeze_last_layer not in idle and not any(LAST_LAYER in name for name in names):
            raise ValueError(
                f"optim.freeze_last_layer={self.freeze_last_layer:g} holds the prototypes of DINO and iBOT "
                "still, and this method has none: set optim.freeze_last_layer=0"
            )

    def set_rates(
        self, optimiser: torch.optim.Optimizer, progress: Progress, *, global_batch: float
    ) -> dict[str, float]:
        """Sets learning rate and weight decay of this step, and returns them."""
        rates = {"lr": self.lr(global_batch)(progress), "wd": self.weight_decay(progress)}
        for members in optimiser.param_groups:
            members["lr"] = rates["lr"]
            members["weight_decay"] = rates["wd"] if members["decays"] else 0.0
        return rates


LAST_LAYER = "last_layer"  # in the names of prototypes

# Learned inputs of a Vision Transformer, which timm never decays.
TOKENS = ("pos_embed", "cls_token", "dist_token", "reg_token", "mask_token")


def group(student: nn.Module, *, tokens: bool = True) -> dict[bool, list[tuple[str, nn.Parameter]]]:
    """Which parameters are decayed, by name: all but biases and 1-d tensors.

    So positions, class, register and mask tokens and free gains of the prototypes are decayed, unlike timm's
    habit; without `tokens` the positions and tokens are not. Parameters without gradient belong to no group.
    """
    groups: dict[bool, list[tuple[str, nn.Parameter]]] = {True: [], False: []}
    for name, parameter in student.named_parameters():
        if parameter.requires_grad:
            bare = name.endswith(".bias") or parameter.ndim == 1
            bare = bare or (not tokens and name.rsplit(".", 1)[-1] in TOKENS)
            groups[not bare].append((name, parameter))
    return groups


@torch.no_grad()
def clip_(optimiser: torch.optim.Optimizer, largest: float | None) -> Float[Tensor, ""]:
    """Scales each gradient tensor down to a norm of at most `largest`; returns the norm of all before that.

    The coefficient is largest / (norm + 1e-6), as in the official code; nothing is read back by the host.
    """
    gradients = [
        p.grad for members in optimiser.param_groups for p in members["params"] if p.grad is not None
    ]
    found = norms(gradients)
    if largest is not None:
        coefficients = (largest / (found + 1e-6)).clamp(max=1)
        torch._foreach_mul_([local(gradient) for gradient in gradients], list(coefficients.unbind()))
    return found.norm()


def freeze_last_layer(optimiser: torch.optim.Optimizer) -> None:
    """Takes the gradients of the prototypes away: the optimiser then leaves them and their moments alone."""
    for members in optimiser.param_groups:
        for name, parameter in zip(members["param_names"], members["params"]):
            if LAST_LAYER in name:
                parameter.grad = None
