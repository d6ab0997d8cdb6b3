"""A few steps of a method on noise: whether a new part trains at all, before any data are read."""

import torch
from torch import Tensor

from pipelines.batch import Batch
from pipelines.crops import Crops, LocalCrops, MultiCrop
from raymask.heads import Head
from raymask.methods.method import Method
from raymask.optim import Optim
from raymask.progress import Progress
from raymask.step import train_step
from raymask.streams import Rng
from raymask.vit import Backbone

# Small enough that a step takes a few milliseconds.
BACKBONE = Backbone(image_size=32, patch_size=8, dim=32, depth=2, heads=2, drop_path=0.0)
HEAD = Head(hidden_dim=32, bottleneck_dim=16, out_dim=64)
CROPS = MultiCrop(global_crops=Crops(count=2, size=32), local_crops=LocalCrops(count=2, size=16))
OPTIM = Optim(base_lr=0.05, warmup=0.0, freeze_last_layer=0)


def trial(
    method: Method, *, crops: MultiCrop = CROPS, steps: int = 3, images: int = 4, seed: int = 0
) -> list[dict[str, float]]:
    """What each step reported. Raises ValueError for a loss not finite or a weight without gradient."""
    method.train()
    optimiser, reports = OPTIM.build(method.student), []
    for step in range(steps):
        progress, rng = Progress(step=step, steps=steps, steps_per_epoch=1), Rng(seed, step)
        batch = noise(crops, images=images, step=step)
        report = train_step(method, batch, progress, rng, optimiser=optimiser, optim=OPTIM)
        reports.append({name: float(value) for name, value in report.items()})
        _check(method, reports[-1]["loss"])
    return reports


def noise(crops: MultiCrop, *, images: int, step: int) -> Batch:
    """A batch of noise in the place of crops; every step is another epoch over the same images."""
    draw = torch.Generator().manual_seed(step)

    def views(group: Crops) -> Tensor:
        return torch.randn(group.count, images, 3, group.height, group.width, generator=draw)

    which = torch.arange(images)
    return Batch(
        crops={name: views(group) for name, group in crops.groups.items() if group.count},
        labels=which % 2,
        samples=which,
        epochs=torch.full_like(which, step),
        positions=which + step * images,
        step=step,
        rows=images,
        signature=step,
    )


def _check(method: Method, loss: float) -> None:
    if loss != loss or abs(loss) == float("inf"):
        raise ValueError(f"the loss is {loss}: a new part must give a finite one")
    idle = [name for name, p in method.student.named_parameters() if p.requires_grad and p.grad is None]
    if idle:
        raise ValueError(
            f"no gradient reaches {', '.join(idle[:5])} of the student: give the loss a way there"
        )
