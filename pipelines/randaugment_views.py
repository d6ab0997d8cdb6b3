"""Views with RandAugment: apart from `render.cut_views`, so that only runs that use it compile it."""

import numpy as np

from pipelines.draws import draw_views, signature
from pipelines.parts import part
from pipelines.planes import picture_of
from pipelines.randaugment import draw_operations, sign_operations
from pipelines.randaugment_pixels import augment
from pipelines.render import colour_levels, cut_levels, normalise

# v: views of a group   n, m: sides of a view


@part
def mean_levels(affine):
    """The data's mean colour in whole levels, uint8 [3]: what operations that move pixels uncover."""
    fill = np.empty(3, np.uint8)
    for c in range(3):
        # halves go up, whichever way the last digit of the division fell
        fill[c] = min(max(int(0.501 - affine[1, c] / affine[0, c]), 0), 255)
    return fill


@part
def _render_group(picture, views, operations, affine, slot, out):
    levels, fill = np.empty(out.shape[2:], np.uint8), mean_levels(affine)
    for v in range(len(views)):
        cut_levels(picture, views[v], levels)
        for k in range(operations.shape[1]):
            augment(levels, operations[v, k], fill)
        colour_levels(views[v], levels)
        normalise(levels, affine, out[v, slot])


@part
def cut_augmented_views(data, frame, key, sample, rules, affine, slot, views, global_out, local_out):
    """`render.cut_views`, with the same arguments, for rules that ask for RandAugment.

    Its operations come after the flip and before the jitter. The signature covers them as well.
    """
    draw_views(key, frame[0], frame[1], rules, views)
    operations = draw_operations(key, rules)
    picture = picture_of(data, frame)
    split = global_out.shape[0]
    _render_group(picture, views[:split], operations[:split], affine, slot, global_out)
    _render_group(picture, views[split:], operations[split:], affine, slot, local_out)
    return sign_operations(signature(sample, views), operations)
