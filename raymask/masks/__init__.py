"""Masks: a strategy ranks patches, one function hides the right count. bool, True = hidden, on the device."""

from raymask.masks.hide import hidden_count, hide_pixels, hide_top, visible_indices
from raymask.masks.mask import Mask, Masks
from raymask.masks.ranking import RandomStrategy, random_scores
from raymask.masks.signature import mask_signature

__all__ = [
    "Mask",
    "Masks",
    "RandomStrategy",
    "hidden_count",
    "hide_pixels",
    "hide_top",
    "mask_signature",
    "random_scores",
    "visible_indices",
]
