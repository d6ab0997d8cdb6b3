"""What RandAugment does to a view: operations and strengths, drawn as a pure function of the view's key.

Operations and ranges are those of timm's `rand-m9-mstd0.5-inc1`, which DeiT trains with (RandAugment: Cubuk
et al., arXiv:1909.13719): all of them grow with the magnitude. Pixels are in `randaugment_pixels.py`.
"""

import math

import numpy as np

from pipelines.memory import word_at
from pipelines.parts import part
from pipelines.streams import fold, mix, purpose, uniform

# v: views   k: operations of a view, at most

(
    AUTOCONTRAST,
    EQUALISE,
    INVERT,
    ROTATE,
    POSTERISE,
    SOLARISE,
    SOLARISE_ADD,
    COLOUR,
    CONTRAST,
    BRIGHTNESS,
    SHARPNESS,
    SHEAR_X,
    SHEAR_Y,
    TRANSLATE_X,
    TRANSLATE_Y,
) = range(15)
KINDS = 15
NOTHING = -1
MAX_MAGNITUDE = 10.0

# One operation as it was drawn. Packed without gaps, so that its bytes can be hashed.
OPERATION = np.dtype(
    [
        ("kind", "i4"),
        ("cubic", "i4"),  # interpolation where the operation moves pixels: bicubic or bilinear
        # degrees, bits that stay, threshold, levels added, factor, slope, or share of a side
        ("value", "f4"),
    ]
)

_STREAM = np.uint64(purpose("randaugment"))
_HAPPENS, _KIND, _RADIUS, _ANGLE, _SIGN, _CUBIC, _DRAWS = range(7)  # counters of an operation


@part
def strength(kind, magnitude, sign):
    """The argument of an operation at a magnitude in 0..10: timm's "increasing" ranges."""
    share = magnitude / MAX_MAGNITUDE
    if kind == ROTATE:
        return sign * share * 30.0
    if kind == POSTERISE:
        return 4.0 - int(share * 4)
    if kind == SOLARISE:
        return 256.0 - int(share * 256)
    if kind == SOLARISE_ADD:
        return float(int(share * 110))
    if COLOUR <= kind <= SHARPNESS:
        return max(0.1, 1.0 + sign * share * 0.9)
    if kind in (SHEAR_X, SHEAR_Y):
        return sign * share * 0.3
    if kind in (TRANSLATE_X, TRANSLATE_Y):
        return sign * share * 0.45
    return 0.0


@part
def _draw(key, first, rule, operation):
    operation.kind, operation.cubic, operation.value = NOTHING, 0, 0.0
    if uniform(key, np.uint64(first + _HAPPENS)) >= rule.operation_probability:
        return
    # a normal draw by the method of Box and Muller
    radius = math.sqrt(-2.0 * math.log(1.0 - uniform(key, np.uint64(first + _RADIUS))))
    normal = radius * math.cos(2.0 * math.pi * uniform(key, np.uint64(first + _ANGLE)))
    magnitude = min(max(rule.magnitude + rule.spread * normal, 0.0), MAX_MAGNITUDE)
    operation.kind = int(uniform(key, np.uint64(first + _KIND)) * KINDS)
    sign = -1.0 if uniform(key, np.uint64(first + _SIGN)) >= 0.5 else 1.0
    operation.value = strength(operation.kind, magnitude, sign)
    operation.cubic = uniform(key, np.uint64(first + _CUBIC)) < rule.cubic


@part
def draw_operations(key: np.uint64, rules: np.ndarray) -> np.ndarray:
    """OPERATION [v, k] of an image's views, k the most that any of their rules asks for; those that do not
    happen are NOTHING. `key` is that of the sample and epoch."""
    most = 0
    for v in range(len(rules)):
        most = max(most, rules[v].operations)
    drawn = np.zeros((len(rules), most), OPERATION)
    for v in range(len(rules)):
        stream = fold(fold(key, np.uint64(v)), _STREAM)
        for k in range(most):
            if k < rules[v].operations:
                _draw(stream, k * _DRAWS, rules[v], drawn[v, k])
            else:
                drawn[v, k].kind = NOTHING
    return drawn


@part
def sign_operations(signature: np.uint64, operations: np.ndarray) -> np.uint64:
    """The signature of an image and its views, with these operations: as it was where there are none."""
    if operations.size == 0:
        return signature
    value = mix(signature)
    start = np.uint64(operations.ctypes.data)
    for i in range(0, operations.nbytes, 4):
        value = fold(value, np.uint64(word_at(start + np.uint64(i))))  # type: ignore[call-arg]
    return value
