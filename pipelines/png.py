"""PNGs whose data end before their last row: Pillow fills in black and says nothing.

A row of a PNG takes one byte for its filter, then its pixels; an interlaced one is seven smaller images
(PNG specification, 3rd edition, 7.2 and 8.1).
"""

import zlib
from collections.abc import Iterator

PIECE = 1 << 18
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # by colour type
_PASSES = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))


def ends_early(data: bytes) -> bool:
    """Whether a PNG that Pillow could load holds fewer rows than its header says."""
    width, height = int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")
    bits = data[24] * _CHANNELS.get(data[25], 1)
    passes = _PASSES if data[28] else ((0, 0, 1, 1),)
    missing = sum(
        _bytes(-(-(width - left) // across), -(-(height - top) // down), bits)
        for left, top, across, down in passes
    )
    inflate = zlib.decompressobj()
    for piece in _compressed(data):
        while piece and missing > 0:
            missing -= len(inflate.decompress(piece, min(PIECE, missing)))
            piece = inflate.unconsumed_tail
        if missing <= 0 or inflate.eof:
            break
    return missing > 0


def _bytes(width: int, height: int, bits: int) -> int:
    return height * (1 + -(-width * bits // 8)) if width > 0 and height > 0 else 0


def _compressed(data: bytes) -> Iterator[bytes]:
    """The data of the IDAT chunks."""
    place = 8
    while place + 8 <= len(data):
        size, kind = int.from_bytes(data[place : place + 4], "big"), data[place + 4 : place + 8]
        if kind == b"IDAT":
            yield data[place + 8 : place + 8 + size]
        place += size + 12
