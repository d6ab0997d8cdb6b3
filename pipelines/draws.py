"""The parameters of every view, drawn before any pixel is touched: a pure function of a key and a size.

Each draw has a fixed counter in the stream of its view, so that none depends on whether another was needed.
The distributions are those of torchvision's RandomResizedCrop, ColorJitter, RandomGrayscale and of DINO's
blur and solarise (arXiv:2104.14294 and its released code).
"""

import math

import numpy as np

from pipelines.crops import Crops
from pipelines.memory import word_at
from pipelines.parts import inlined, part
from pipelines.streams import fold, mix, uniform

# How a view is drawn: the numbers of `Crops` for one view.
RULE = np.dtype(
    [(f"{name}_{end}", "f8") for name in ("scale", "log_aspect", "sigma") for end in ("low", "high")]
    + [(name, "f8") for name in ("flip", "jitter", "brightness", "contrast", "saturation", "hue")]
    + [(name, "f8") for name in ("grey", "blur", "solarise", "threshold")]
    # RandAugment's, read in `randaugment.py`; cubic: probability of bicubic rather than bilinear
    + [("operations", "i8")]
    + [(name, "f8") for name in ("magnitude", "spread", "operation_probability", "cubic")]
)

# What was drawn for a view. Packed without gaps, so that its bytes can be hashed.
VIEW = np.dtype(
    [(name, "i4") for name in ("top", "left", "height", "width")]  # the crop, in pixels of the image
    # the four parts of the jitter in their order, base 4, the first in the lowest digit; -1: none
    + [("order", "i4"), ("flip", "i4")]
    + [(name, "f4") for name in ("brightness", "contrast", "saturation", "hue")]
    + [("sigma", "f4"), ("grey", "i4")]  # sigma of the blur; 0: none
    + [("threshold", "i4")]  # solarised at or above; 256: never
)

BRIGHTNESS, CONTRAST, SATURATION, HUE = range(4)
NEVER = 256
TRIES = 10  # of finding a crop inside the image, before the central one is taken

# Counters of the stream of a view: a try at a crop takes four draws, then come those of the other operations.
_FLIP = 4 * TRIES
_JITTER = _FLIP + 1
_FACTORS = _JITTER + 1
_ORDER = _FACTORS + 4
_GREY = _ORDER + 3
_BLUR = _GREY + 1
_SIGMA = _BLUR + 1
_SOLARISE = _SIGMA + 1


def rules(crops: Crops) -> np.ndarray:
    """RULE [count]: how each view of a group is drawn."""
    table = np.zeros(crops.count, RULE)
    table["scale_low"], table["scale_high"] = crops.scale
    table["log_aspect_low"], table["log_aspect_high"] = np.log(crops.aspect)
    table["sigma_low"], table["sigma_high"] = crops.blur_sigma
    for name in ("flip", "jitter", "brightness", "contrast", "saturation", "hue", "grey"):
        table[name] = getattr(crops, name)
    table["blur"], table["solarise"] = crops.per_view("blur"), crops.per_view("solarise")
    table["threshold"] = crops.solarise_threshold
    given = crops.randaugment
    if given is not None:
        table["operations"], table["operation_probability"] = given.operations, given.probability
        table["magnitude"], table["spread"] = given.magnitude, given.spread
        table["cubic"] = {"bicubic": 1.0, "bilinear": 0.0, "random": 0.5}[given.interpolation]
    return table


@part
def _between(key, counter, low, high):
    return low + (high - low) * uniform(key, np.uint64(counter))


@part
def _happens(key, counter, probability):
    return uniform(key, np.uint64(counter)) < probability


@inlined
def _central_box(height, width, rule, view):
    """The largest central crop whose aspect is allowed: what is left when no try fits."""
    low, high = math.exp(rule.log_aspect_low), math.exp(rule.log_aspect_high)
    view.height, view.width = height, width
    if width / height < low:
        view.height = max(1, int(np.rint(width / low)))
    elif width / height > high:
        view.width = max(1, int(np.rint(height * high)))
    view.top, view.left = (height - view.height) // 2, (width - view.width) // 2


@inlined
def _draw_box(key, height, width, rule, view):
    """A crop of random area and aspect at a random place, by the rule of torchvision's RandomResizedCrop."""
    for trial in range(TRIES):
        area = _between(key, 4 * trial, rule.scale_low, rule.scale_high) * height * width
        aspect = math.exp(_between(key, 4 * trial + 1, rule.log_aspect_low, rule.log_aspect_high))
        rows, columns = int(np.rint(math.sqrt(area / aspect))), int(np.rint(math.sqrt(area * aspect)))
        if 0 < rows <= height and 0 < columns <= width:
            view.height, view.width = rows, columns
            view.top = int(uniform(key, np.uint64(4 * trial + 2)) * (height - rows + 1))
            view.left = int(uniform(key, np.uint64(4 * trial + 3)) * (width - columns + 1))
            return
    _central_box(height, width, rule, view)


@inlined
def _draw_order(key):
    """A random order of the four parts of the jitter, as digits base 4."""
    digits = 0 + 4 * 1 + 16 * 2 + 64 * 3
    for last in range(3, 0, -1):
        other = int(uniform(key, np.uint64(_ORDER + 3 - last)) * (last + 1))
        change = (digits >> 2 * last ^ digits >> 2 * other) & 3  # the bits in which the two differ
        if other != last:  # both flip them, which swaps the two
            digits ^= change << 2 * last | change << 2 * other
    return digits


@inlined
def _draw_jitter(key, rule, view):
    view.order = -1
    view.brightness = view.contrast = view.saturation = 1.0
    view.hue = 0.0
    if _happens(key, _JITTER, rule.jitter):
        view.order = _draw_order(key)
        view.brightness = _between(key, _FACTORS, max(0.0, 1 - rule.brightness), 1 + rule.brightness)
        view.contrast = _between(key, _FACTORS + 1, max(0.0, 1 - rule.contrast), 1 + rule.contrast)
        view.saturation = _between(key, _FACTORS + 2, max(0.0, 1 - rule.saturation), 1 + rule.saturation)
        view.hue = _between(key, _FACTORS + 3, -rule.hue, rule.hue)


@part
def draw_views(key: np.uint64, height: int, width: int, rules: np.ndarray, views: np.ndarray) -> None:
    """Fills `views` (VIEW [v]) for an image of this size; `key` is that of its sample and epoch."""
    for v in range(len(rules)):
        stream, rule, view = fold(key, np.uint64(v)), rules[v], views[v]
        _draw_box(stream, height, width, rule, view)
        view.flip = _happens(stream, _FLIP, rule.flip)
        _draw_jitter(stream, rule, view)
        view.grey = _happens(stream, _GREY, rule.grey)
        blurred = _happens(stream, _BLUR, rule.blur)
        view.sigma = _between(stream, _SIGMA, rule.sigma_low, rule.sigma_high) if blurred else 0.0
        view.threshold = rule.threshold if _happens(stream, _SOLARISE, rule.solarise) else NEVER


@part
def signature(sample: np.uint64, views: np.ndarray) -> np.uint64:
    """64 bits that stand for a sample and its drawn views (VIEW [v])."""
    value = mix(np.uint64(sample) + np.uint64(1))
    start = np.uint64(views.ctypes.data)
    for i in range(0, views.nbytes, 4):
        value = fold(value, np.uint64(word_at(start + np.uint64(i))))  # type: ignore[call-arg]
    return value
