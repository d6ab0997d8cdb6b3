"""Frozen features of a backbone, in the order of the samples."""

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from raymask.device import autocast

# b: images of a forward   n: images   d: backbone.dim   h, w: pixels

BASE_WIDTH = 768  # from this width on, the official linear protocol takes the last block and the mean patch

Images = Callable[[np.ndarray], Float[Tensor, "b 3 h w"]]


@dataclass(frozen=True)
class Features:
    """What the evaluations start from, float32 on the backbone's device.

    cls: [n, d] [CLS] after the final norm, for k-NN
    linear: [n, d'] for the linear probe: the [CLS] of the last four blocks, each after the final norm (widths
        below 768), or the last [CLS] beside the mean patch token (from 768 on)
    """

    cls: Float[Tensor, "n d"]
    linear: Float[Tensor, "n e"]


def in_batches(
    images: Images, samples: Int[np.ndarray, " n"], *, batch: int, threads: int = 2
) -> Iterator[Tensor]:
    """The images of `samples` in order, `batch` at a time, prepared by threads ahead of use."""
    parts = [samples[start : start + batch] for start in range(0, len(samples), batch)]
    with ThreadPoolExecutor(threads) as pool:
        ahead: list[Future[Tensor]] = []
        for part in parts:
            ahead.append(pool.submit(images, part))
            if len(ahead) > threads:
                yield ahead.pop(0).result()
        yield from (future.result() for future in ahead)


@torch.no_grad()
def extract(
    backbone: torch.nn.Module, batches: Iterator[Tensor], *, dtype: torch.dtype | None = None
) -> Features:
    """Features of all images, under autocast to `dtype` (None: as the parameters are)."""
    device = next(backbone.parameters()).device
    was_training = backbone.training
    backbone.eval()
    try:
        with autocast(device, dtype):
            parts = [_forward(backbone, images.to(device, non_blocking=True)) for images in batches]
    finally:
        backbone.train(was_training)
    cls, linear = zip(*parts)
    return Features(torch.cat(cls), torch.cat(linear))


def _forward(backbone: torch.nn.Module, images: Float[Tensor, "b 3 h w"]) -> tuple[Tensor, Tensor]:
    last = min(4, len(backbone.vit.blocks))
    tokens, extras = backbone(images, last=last)
    cls = tokens[:, 0].float()
    if backbone.dim < BASE_WIDTH:
        return cls, torch.cat([block.float() for block in extras["cls"]], dim=1)
    return cls, torch.cat([cls, tokens[:, backbone.prefix :].float().mean(1)], dim=1)


def pixels(batches: Iterator[Tensor], *, side: int = 32) -> Float[Tensor, "n e"]:
    """Normalised pixels as features: images averaged down to at most `side` x `side`, flattened."""
    parts = []
    for images in batches:
        small = min(side, images.shape[-1])
        parts.append(torch.nn.functional.adaptive_avg_pool2d(images, small).flatten(1))
    return torch.cat(parts)
