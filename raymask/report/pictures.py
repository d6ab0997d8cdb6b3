"""Tensors as pictures in a page: crops, what a mask hides of them, and attention as heat."""

import base64
import io

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from matplotlib import colormaps
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

# h, w: pixels   n: patches

LARGEST = 96  # pixels of a thumbnail's longer side
HIDDEN = np.array([128, 128, 140], np.float32)  # a grey that neither images nor pages have much of


def levels(
    image: Float[Tensor, "3 h w"], *, mean: tuple[float, ...], std: tuple[float, ...]
) -> UInt8[np.ndarray, "h w 3"]:
    """A normalised image as levels."""
    shade = image.float().cpu() * torch.tensor(std)[:, None, None] + torch.tensor(mean)[:, None, None]
    return (shade.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()


def masked(
    pixels: UInt8[np.ndarray, "h w 3"], hidden: Bool[Tensor, " n"], *, patch: tuple[int, int]
) -> UInt8[np.ndarray, "h w 3"]:
    """The image with its hidden patches greyed out, a trace of them left for the eye."""
    height, width = pixels.shape[:2]
    grid = hidden.cpu().numpy().reshape(height // patch[0], width // patch[1])
    cover = np.kron(grid, np.ones(patch, bool))[:, :, None]
    return np.where(cover, 0.12 * pixels + 0.88 * HIDDEN, pixels).astype(np.uint8)


def heat(
    pixels: UInt8[np.ndarray, "h w 3"], attention: Float[Tensor, " n"], *, grid: tuple[int, int]
) -> UInt8[np.ndarray, "h w 3"]:
    """What is attended to, as heat over the greyed image; each map is stretched to its own range."""
    least, most = attention.min(), attention.max()
    shares = ((attention - least) / (most - least).clamp_min(1e-12)).float().cpu().reshape(1, 1, *grid)
    smooth = interpolate(shares, size=pixels.shape[:2], mode="bilinear", align_corners=False)[0, 0]
    colours = np.asarray(colormaps["magma"](smooth.numpy()))[:, :, :3] * 255
    grey = pixels.mean(2, keepdims=True)
    return np.clip(0.3 * grey + 0.7 * colours, 0, 255).astype(np.uint8)


def png(pixels: UInt8[np.ndarray, "h w 3"]) -> str:
    """The image as a data URI, no larger than a thumbnail."""
    image = Image.fromarray(pixels)
    if max(image.size) > LARGEST:
        image.thumbnail((LARGEST, LARGEST), Image.Resampling.LANCZOS)
    packed = io.BytesIO()
    image.save(packed, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(packed.getvalue()).decode()
