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
from numba.core.event import register

from pipelines import (
    blur,
    canvas,
    colour,
    draws,
    jpeg,
    jpeg_library,
    kernels,
    memory,
    parts,
    planes,
    randaugment,
    randaugment_affine,
    randaugment_pixels,
    randaugment_views,
    render,
    streams,
)
from pipelines.draws import draw_views
from pipelines.first_use import FirstUse
from pipelines.kernels import of_pixels
from pipelines.planes import picture_of
from pipelines.randaugment_pixels import augment as augment_levels
from pipelines.randaugment_views import cut_augmented_views
from pipelines.render import (
    centre_views,
    cut_levels,
    cut_views,
    level_views,
    normalise,
    place_picture,
    render_levels,
)

_SOURCES = (
    *(blur, canvas, colour, draws, jpeg, jpeg_library, kernels, memory, parts, planes, render, streams),
    *(randaugment, randaugment_affine, randaugment_pixels, randaugment_views),
)


class Native(NamedTuple):
    """Compiled functions; their arguments are described where they are written.

    cut: `render.cut_views`; cut_augmented: `randaugment_views.cut_augmented_views`
    augment: `randaugment_pixels.augment`; centre: `render.centre_views`; draw: `draws.draw_views`
    view: `render.render_levels` of an image uint8 [h, w, 3], and `render.normalise` of that
    levels: `render.cut_levels` of a stored picture; split: `render.level_views`
    place: `render.place_picture`
    jpeg_header, jpeg_bytes, jpeg_planes: `jpeg.header`, `jpeg.bytes_of`, `jpeg.planes`
    """

    cut: Callable
    cut_augmented: Callable
    augment: Callable
    centre: Callable
    draw: Callable
    view: Callable
    levels: Callable
    split: Callable
    place: Callable
    jpeg_header: Callable
    jpeg_bytes: Callable
    jpeg_planes: Callable


@functools.cache
def native() -> Native:
    """The entry points; the first call of each on a machine compiles it (seconds), later ones load it."""
    sources = b"".join(Path(str(module.__file__)).read_bytes() for module in _SOURCES)
    digest = int.from_bytes(hashlib.blake2b(sources, digest_size=7).digest())
    views, pictures = _of_views(digest), _of_pictures(digest)
    register("numba:compile", FirstUse([*views.values(), *pictures.values()], slow=list(views.values())))
    return Native(**views, **pictures)


def _of_views(digest: int) -> dict[str, Callable]:
    """The entry points of rows of a batch."""

    @njit(nogil=True, cache=True, error_model="numpy")
    def cut(data, frame, key, sample, rules, affine, slot, views, global_out, local_out):
        _ = digest
        return cut_views(data, frame, key, sample, rules, affine, slot, views, global_out, local_out)

    @njit(nogil=True, cache=True, error_model="numpy")
    def cut_augmented(data, frame, key, sample, rules, affine, slot, views, global_out, local_out):
        _ = digest
        return cut_augmented_views(
            data, frame, key, sample, rules, affine, slot, views, global_out, local_out
        )

    @njit(nogil=True, cache=True, error_model="numpy")
    def split(data, frame, key, sample, rules, slot, views, global_out, local_out):
        _ = digest
        return level_views(data, frame, key, sample, rules, slot, views, global_out, local_out)

    @njit(nogil=True, cache=True, error_model="numpy")
    def place(data, frame, key, sample, rules, views, out):
        _ = digest
        return place_picture(data, frame, key, sample, rules, views, out)

    return {"cut": cut, "cut_augmented": cut_augmented, "split": split, "place": place}


def _of_pictures(digest: int) -> dict[str, Callable]:
    """The entry points of single pictures and of parts of the work."""

    @njit(nogil=True, cache=True, error_model="numpy")
    def augment(levels, operation, fill):
        _ = digest
        augment_levels(levels, operation, fill)

    @njit(nogil=True, cache=True, error_model="numpy")
    def centre(pixels, full, affine, out):
        _ = digest
        centre_views(pixels, full, affine, out)

    @njit(nogil=True, cache=True, error_model="numpy")
    def draw(key, height, width, rules, views):
        _ = digest
        draw_views(key, height, width, rules, views)

    @njit(nogil=True, cache=True, error_model="numpy")
    def view(pixels, drawn, affine, levels, out):
        _ = digest
        render_levels(of_pixels(pixels), drawn, levels)
        normalise(levels, affine, out)

    @njit(nogil=True, cache=True, error_model="numpy")
    def levels(data, frame, drawn, out):
        _ = digest
        cut_levels(picture_of(data, frame), drawn, out)

    @njit(nogil=True, cache=True, error_model="numpy")
    def jpeg_header(calls, struct, messages, data, frame):
        _ = digest
        return jpeg.header(calls, struct, messages, data, frame)

    @njit(nogil=True, cache=True, error_model="numpy")
    def jpeg_bytes(frame):
        _ = digest
        return jpeg.bytes_of(frame)

    @njit(nogil=True, cache=True, error_model="numpy")
    def jpeg_planes(calls, struct, messages, damage, rows, frame, out):
        _ = digest
        return jpeg.planes(calls, struct, messages, damage, rows, frame, out)

    parts: dict[str, Callable] = {"augment": augment, "centre": centre, "draw": draw, "view": view}
    jpegs = {"jpeg_header": jpeg_header, "jpeg_bytes": jpeg_bytes, "jpeg_planes": jpeg_planes}
    return parts | {"levels": levels} | jpegs
