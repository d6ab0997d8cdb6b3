"""JPEG straight to its planes, as they are stored: no chroma upsampling, no RGB. One native call, GIL-free.

A file that the decoder warns of (bad codes, a premature end, bytes that nothing reads) is damaged: the
library would fill in grey or repeat rows. So every warning that touches pixels counts as an error.
"""

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from pipelines import jpeg_library as lib
from pipelines.memory import address_at, word_at
from pipelines.parts import inlined, part

# What `header` says of a file.
PLANES, OTHER, BROKEN = range(3)

# Numbers of a frame: sides in pixels, components, then the sampling and the size in blocks of each.
FRAME = 15
_YCBCR, _GREY = 3, 1
_OK = 1


@intrinsic
def _call(typing, guarded, env, function, a, b, c):
    """int64 guarded(env, function, a, b, c), all of them addresses or integers as uint64."""

    def generate(context, builder, signature, values):
        word = ir.IntType(64)
        kind = ir.FunctionType(word, [word] * 5)
        return builder.call(builder.inttoptr(values[0], kind.as_pointer()), values[1:])

    return types.int64(*[types.uint64] * 6), generate


@part
def _guarded(calls, function, b, c):
    return _call(  # type: ignore[call-arg]  # numba passes the typing context itself
        calls[lib.GUARDED], calls[lib.ENV], calls[function], calls[lib.STRUCT], np.uint64(b), np.uint64(c)
    )


@part
def _abort(calls):
    _guarded(calls, lib.ABORT, 0, 0)


@part
def _forget(messages):
    for number in range(len(messages)):
        messages[number] = 0


@inlined
def header(calls: np.ndarray, struct: np.ndarray, messages: np.ndarray, data: np.ndarray, frame: np.ndarray):
    """Reads the header of `data` (uint8 [n]) into `frame` (int64 [FRAME]): PLANES, OTHER or BROKEN.

    PLANES: `planes` can decode it, from the same data, next; OTHER: a JPEG of another colour space or
    precision. The sides are filled in for both.
    """
    _forget(messages)
    _abort(calls)
    if _guarded(calls, lib.MEM_SRC, data.ctypes.data, len(data)) == lib.FAILED:
        return BROKEN
    if _guarded(calls, lib.READ_HEADER, 1, 0) != _OK:
        return BROKEN
    _forget(messages)  # what stands between the segments of a header is no matter of pixels
    frame[0], frame[1] = struct[lib.HEIGHT // 4], struct[lib.WIDTH // 4]
    count, colours = struct[lib.COMPONENTS // 4], struct[lib.COLOURS // 4]
    frame[2] = count
    if not ((count == 3 and colours == _YCBCR) or (count == 1 and colours == _GREY)):
        return OTHER
    if struct[lib.PRECISION // 4] != 8:
        return OTHER
    first = address_at(calls[lib.STRUCT] + np.uint64(lib.COMPONENT))  # type: ignore[call-arg, var-annotated]
    for c in range(count):
        at = first + np.uint64(c * lib.COMPONENT_BYTES)
        frame[3 + 4 * c] = word_at(at + np.uint64(lib.H))  # type: ignore[call-arg]
        frame[4 + 4 * c] = word_at(at + np.uint64(lib.V))
        frame[5 + 4 * c] = word_at(at + np.uint64(lib.BLOCKS_WIDE))
        frame[6 + 4 * c] = word_at(at + np.uint64(lib.BLOCKS_HIGH))
    return PLANES if _is_usual(struct, frame) else OTHER


@part
def _is_usual(struct, frame):
    """Whether luma has full resolution, and both chromas the same whole fraction of it."""
    if frame[2] == 1:
        return True
    if frame[3] != struct[lib.MAX_H // 4] or frame[4] != struct[lib.MAX_V // 4]:
        return False
    if frame[7] != frame[11] or frame[8] != frame[12]:
        return False
    return frame[3] % frame[7] == 0 and frame[4] % frame[8] == 0


@part
def _is_complete(calls, count):
    """Whether the scans of a progressive file, all read by now, have brought every bit of every coefficient.

    Without the last ones it is a blurred image that the library does not warn of.
    """
    sent = address_at(calls[lib.STRUCT] + np.uint64(lib.SENT))  # type: ignore[call-arg, var-annotated]
    if sent == 0:  # not progressive
        return True
    missing = 0
    for number in range(64 * count):
        missing += word_at(sent + np.uint64(4 * number)) != 0  # type: ignore[call-arg]
    return missing == 0


@part
def bytes_of(frame: np.ndarray) -> int:
    """Bytes of all planes, in whole blocks, and of a row that is written in vain."""
    total = 0
    widest = 0
    for c in range(frame[2]):
        total += 64 * frame[5 + 4 * c] * frame[6 + 4 * c]
        widest = max(widest, 8 * frame[5 + 4 * c])
    return total + widest


@inlined
def planes(calls, struct, messages, damage, rows, frame, out) -> bool:
    """Decodes what `header` has read into `out` (uint8 [bytes_of(frame)]); whether it is sound.

    The planes follow each other, each of 8 x blocks rows and columns.
    """
    count = frame[2]
    struct[lib.OUT_COLOURS // 4] = struct[lib.COLOURS // 4]
    struct[lib.RAW // 4] = 1
    if _guarded(calls, lib.START, 0, 0) != _OK or not _is_complete(calls, count):
        _abort(calls)
        return False
    base = np.uint64(out.ctypes.data)
    row = 0
    while struct[lib.OUT_LINE // 4] < struct[lib.OUT_HEIGHT // 4]:
        start = 0
        for c in range(count):
            stride, height, step = 8 * frame[5 + 4 * c], 8 * frame[6 + 4 * c], 8 * frame[4 + 4 * c]
            for i in range(step):
                y = row * step + i
                rows[c, i] = base + np.uint64(start + y * stride if y < height else bytes_of(frame) - stride)
            start += stride * height
        if _guarded(calls, lib.READ_RAW, calls[lib.ROWS], struct[lib.MAX_V // 4] * 8) <= 0:
            _abort(calls)
            return False
        row += 1
    # Up to the end mark: what is left over shows most flipped bits, after which codes end too early or late.
    if _guarded(calls, lib.FINISH, 0, 0) != _OK:
        _abort(calls)
        return False
    damaged = 0
    for number in range(len(messages)):
        damaged += messages[number] * damage[number]
    return damaged == 0
