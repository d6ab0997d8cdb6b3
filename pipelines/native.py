"""The compiled entry points of the pixel work, kept on disk between runs.

numba keeps machine code beside the file of a function and looks at the date of that file only: a change in
another file, whose functions were compiled into it, would go unnoticed. So only the entry points here are
kept, and a digest of all kernel sources, a variable of their closure, is part of what they are found by.
"""

import functools
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from numba import njit

from pipelines import (
    blur,
    colour,
    draws,
    kernels,
    randaugment,
    randaugment_affine,
    randaugment_pixels,
    randaugment_views,
    render,
    streams,
)
from pipelines.draws import draw_views
from pipelines.kernels import turned
from pipelines.randaugment_pixels import augment as augment_levels
from pipelines.randaugment_views import cut_augmented_views
from pipelines.render import centre_views, cut_views, normalise, render_levels

_SOURCES = (
    *(blur, colour, draws, kernels, render, streams),
    *(randaugment, randaugment_affine, randaugment_pixels, randaugment_views),
)


class Native(NamedTuple):
    """Compiled functions; their arguments are described where they are written.

    cut: `render.cut_views`; cut_augmented: `randaugment_views.cut_augmented_views`
    augment: `randaugment_pixels.augment`; centre: `render.centre_views`; draw: `draws.draw_views`
    view: `render.render_levels` of an image uint8 [h, w, 3], and `render.normalise` of that
    """

    cut: Callable
    cut_augmented: Callable
    augment: Callable
    centre: Callable
    draw: Callable
    view: Callable


@functools.cache
def native() -> Native:
    """The entry points; the first call of each on a machine compiles it (seconds), later ones load it."""
    sources = b"".join(Path(str(module.__file__)).read_bytes() for module in _SOURCES)
    return _entry_points(int.from_bytes(hashlib.blake2b(sources, digest_size=7).digest()))


def _entry_points(digest: int) -> Native:
    @njit(nogil=True, cache=True)
    def cut(pixels, key, sample, rules, affine, slot, views, global_out, local_out):
        _ = digest
        return cut_views(pixels, key, sample, rules, affine, slot, views, global_out, local_out)

    @njit(nogil=True, cache=True)
    def cut_augmented(pixels, key, sample, rules, affine, slot, views, global_out, local_out):
        _ = digest
        return cut_augmented_views(pixels, key, sample, rules, affine, slot, views, global_out, local_out)

    @njit(nogil=True, cache=True)
    def augment(levels, operation, fill):
        _ = digest
        augment_levels(levels, operation, fill)

    @njit(nogil=True, cache=True)
    def centre(pixels, full, affine, out):
        _ = digest
        centre_views(pixels, full, affine, out)

    @njit(nogil=True, cache=True)
    def draw(key, height, width, rules, views):
        _ = digest
        draw_views(key, height, width, rules, views)

    @njit(nogil=True, cache=True)
    def view(pixels, drawn, affine, levels, out):
        _ = digest
        render_levels(turned(pixels), drawn, levels)
        normalise(levels, affine, out)

    return Native(cut, cut_augmented, augment, centre, draw, view)
