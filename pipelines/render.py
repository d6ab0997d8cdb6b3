"""From a decoded image and drawn parameters to normalised crops: one native call an image, GIL-free."""

import numpy as np

from pipelines.blur import blur
from pipelines.canvas import place
from pipelines.colour import blend_with_level, make_grey, mean_grey, saturate, shift_hue, solarise
from pipelines.crops import MultiCrop
from pipelines.draws import BRIGHTNESS, CONTRAST, NEVER, SATURATION, draw_views, signature
from pipelines.kernels import of_pixels, resize_window, to_levels
from pipelines.parts import contracted, inlined
from pipelines.planes import picture_of

# v: views of a group   b: images of a batch   n, m: sides of a view


def normalisation(crops: MultiCrop) -> np.ndarray:
    """float32 [2, 3]: factor and offset that take a level 0..255 to its normalised value."""
    mean, std = np.array(crops.mean), np.array(crops.std)
    return np.stack([1 / (255 * std), -mean / std]).astype(np.float32)


@inlined
def _jitter(levels, view):
    """The four parts of the colour jitter in the drawn order."""
    order = view.order
    for _ in range(4):
        part, order = order % 4, order // 4
        if part == BRIGHTNESS:
            blend_with_level(levels, 0, view.brightness)
        elif part == CONTRAST:
            blend_with_level(levels, mean_grey(levels), view.contrast)
        elif part == SATURATION:
            saturate(levels, view.saturation)
        else:
            shift_hue(levels, view.hue)


@inlined
def render_levels(picture, view: np.record, levels: np.ndarray) -> None:
    """One view of a picture (of `pipelines.kernels`) as 8-bit levels [3, n, m], before normalisation."""
    cut_levels(picture, view, levels)
    colour_levels(view, levels)


@inlined
def cut_levels(picture, view, levels):
    """The crop of a view, resized and flipped, as levels."""
    values = np.empty(levels.shape, np.float32)
    resize_window(
        picture,
        view.top,
        view.left,
        view.height,
        view.width,
        levels.shape[1:],
        (0, 0),
        view.flip != 0,
        values,
    )
    to_levels(values, picture[3] == 0, levels)


@inlined
def colour_levels(view, levels):
    """What is drawn for the colours of a view, done to its levels."""
    if view.order >= 0:
        _jitter(levels, view)
    if view.grey:
        make_grey(levels)
    if view.sigma > 0:
        blur(levels, view.sigma)
    if view.threshold < NEVER:
        solarise(levels, view.threshold)


@contracted
def normalise(levels: np.ndarray, affine: np.ndarray, out: np.ndarray) -> None:
    """Levels uint8 [3, n, m] to float32 of the same shape by a factor and an offset a channel."""
    for c in range(3):
        factor, offset = affine[0, c], affine[1, c]
        for y in range(levels.shape[1]):
            row, into = levels[c, y], out[c, y]
            for x in range(len(row)):
                into[x] = np.float32(row[x]) * factor + offset


@inlined
def _render_all(picture, views, affine, slot, global_out, local_out):
    split = len(global_out)
    for v in range(len(views)):  # one loop for both groups: the compiler takes its time for each
        out = global_out[v, slot] if v < split else local_out[v - split, slot]
        levels = np.empty(out.shape, np.uint8)
        render_levels(picture, views[v], levels)
        normalise(levels, affine, out)


@inlined
def cut_views(data, frame, key, sample, rules, affine, slot, views, global_out, local_out):
    """Draws the views of one image (`planes.Stored`) and renders them into row `slot` of the batch.

    key: of the sample and epoch; sample: number of the image, for the signature that is returned (uint64)
    rules, views: RULE and VIEW [all views], the global ones first; views is filled
    global_out, local_out: float32 [v, b, 3, n, m]; either may have no views
    """
    draw_views(key, frame[0], frame[1], rules, views)
    picture = picture_of(data, frame)
    _render_all(picture, views, affine, slot, global_out, local_out)
    return signature(sample, views)


@inlined
def level_views(data, frame, key, sample, rules, slot, views, global_out, local_out):
    """`cut_views` without colours and normalisation: the same crops as levels, uint8 [v, b, 3, n, m]."""
    draw_views(key, frame[0], frame[1], rules, views)
    picture = picture_of(data, frame)
    split = len(global_out)
    for v in range(len(views)):
        cut_levels(picture, views[v], global_out[v, slot] if v < split else local_out[v - split, slot])
    return signature(sample, views)


@inlined
def place_picture(data, frame, key, sample, rules, views, out):
    """`cut_views` without any pixels cut: the views drawn, and the picture as it is in uint8 [bytes]."""
    draw_views(key, frame[0], frame[1], rules, views)
    place(data, frame, out)
    return signature(sample, views)


@inlined
def centre_views(pixels, full, affine, out):
    """The whole image resized to `full` (h, w), its centre cut and normalised into float32 [3, n, m]."""
    values, levels = np.empty(out.shape, np.float32), np.empty(out.shape, np.uint8)
    # torchvision's CenterCrop rounds halves to even
    start = (int(np.rint((full[0] - out.shape[1]) / 2)), int(np.rint((full[1] - out.shape[2]) / 2)))
    height, width = pixels.shape[:2]
    resize_window(of_pixels(pixels), 0, 0, height, width, full, start, False, values)
    to_levels(values, True, levels)
    normalise(levels, affine, out)
