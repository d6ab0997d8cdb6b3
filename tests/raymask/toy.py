"""Small real things that several tests train: a batch of noise, a method of two blocks."""

import torch
from torch import Tensor

from pipelines.batch import Batch
from raymask.heads import Head
from raymask.masks import Mask
from raymask.methods.dino import Dino, DinoMethod
from raymask.progress import Progress
from raymask.vit import Backbone

PROTOTYPES = 24


def progress(step: int = 3) -> Progress:
    return Progress(step=step, steps=20, steps_per_epoch=2)


def batch(images: int = 5, *, locals_: int = 3, step: int = 0, dtype: torch.dtype = torch.float64) -> Batch:
    """Noise for crops: two globals of 32 pixels, `locals_` of 16."""
    draw = torch.Generator().manual_seed(100 + step)

    def noise(views: int, size: int) -> Tensor:
        return torch.randn(views, images, 3, size, size, generator=draw, dtype=torch.float64).to(dtype)

    where = torch.arange(images)
    crops = {"global": noise(2, 32)} | ({"local": noise(locals_, 16)} if locals_ else {})
    return Batch(
        crops=crops,
        labels=where % 2,
        samples=where + 7,
        epochs=torch.full_like(where, step // 2),
        positions=where + step * images,
        step=step,
        rows=images,
        signature=1,
    )


def dino(mask: Mask | None = None, *, drop_path: float = 0.1, **head: bool) -> DinoMethod:
    """A DINO of two blocks in float64, in training mode."""
    body = Backbone(image_size=32, patch_size=8, dim=24, depth=2, heads=2, drop_path=drop_path)
    settings = Dino(head=Head(hidden_dim=16, bottleneck_dim=8, out_dim=PROTOTYPES, **head))
    return DinoMethod(settings, body, mask or Mask(views="none"), seed=0).double().train()
