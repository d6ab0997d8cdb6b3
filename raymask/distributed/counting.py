"""What a run's steps cost in multiply-accumulates, counted by running them: right for every method.

`raymask.flops` predicts the same from shapes alone for plain networks; here torch counts the products of one
forward pass on noise, at some points of the schedules. A network that learns costs three forwards a step (two
for its gradients), a frozen one one.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from pipelines.data import open_train_and_val
from raymask.config import Config
from raymask.methods import build_method
from raymask.methods.labels import with_classes
from raymask.methods.method import Method
from raymask.plan import Plan, plan
from raymask.streams import Rng
from raymask.trial import noise

_FEW, _MANY, _IMAGES = 5, 16, 2


@dataclass(frozen=True)
class Cost:
    """Multiply-accumulates an image at evenly spaced points of a run: of the frozen networks, and in all."""

    frozen: tuple[float, ...]
    total: tuple[float, ...]

    def until(self, share: float, images: int) -> dict[str, float]:
        """What `images` cost that are this share of the run."""
        passed = max(1, round(share * len(self.total)))
        means = {"flops": self.total[:passed], "teacher_flops": self.frozen[:passed]}
        return {name: sum(values) / passed * images for name, values in means.items()}


def count(config: Config) -> Cost:
    """The cost of a run: its networks are built on the CPU, and thrown away."""
    source, _ = open_train_and_val(config.data)
    config = with_classes(config, source)
    steps = plan(config.train, images=config.data.epoch_length(len(source)), evaluate_images=None)
    method = build_method(config)
    method.train()
    few = [_at(method, config, steps, (point + 0.5) / _FEW) for point in range(_FEW)]
    if len(set(few)) == 1:
        return Cost((few[0][0],), (few[0][1],))
    many = [_at(method, config, steps, (point + 0.5) / _MANY) for point in range(_MANY)]
    frozen, total = zip(*many)
    return Cost(frozen, total)


def _at(method: Method, config: Config, plan: Plan, share: float) -> tuple[float, float]:
    """Frozen and total multiply-accumulates an image of the step at this share of the run."""
    step = min(plan.steps - 1, int(share * plan.steps))
    batch = noise(config.data.crops, images=_IMAGES, step=step)
    with _Products() as products:
        method(batch, plan.progress(step), Rng(config.run.seed, step))
    frozen, trained = products.frozen / _IMAGES / 2, products.trained / _IMAGES / 2
    return frozen, frozen + 3 * trained


class _Products(TorchDispatchMode):
    """Counts the operations of matrix products, with and without gradients."""

    def __init__(self) -> None:
        super().__init__()
        self.frozen = 0.0
        self.trained = 0.0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        formula = flop_registry.get(func._overloadpacket)
        if formula is not None:
            operations = formula(*args, **(kwargs or {}), out_val=found)
            if torch.is_grad_enabled():
                self.trained += operations
            else:
                self.frozen += operations
        return found
