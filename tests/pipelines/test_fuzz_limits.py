"""Inputs made to cost memory or time: read in a process that may have little of either."""

import json
import os
import resource
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipelines.badlog import read_bad
from pipelines.decode import decode
from pipelines.formats.ffcv import BYTES, FIELD, HEADER, INT, rows_type
from pipelines.index import parse_index
from pipelines.manifest import read_manifest
from pipelines.planes import plane_decoder
from pipelines.scan import build_index
from tests.pipelines.test_decode import a_png_that_claims, saved

ROOT = Path(__file__).parents[2]
MEMORY, SECONDS = 160 << 20, 60  # bytes beside what the imports took, and seconds of processor time
MAX_PIXELS = 1_000_000
ZEROS = zlib.compress(bytes(1 << 28), 9)  # 256 MiB in 256 KiB


def header(name: bytes, kind: bytes, size: bytes) -> bytes:
    """A tar header with these fields, whatever they say."""
    block = bytearray(512)
    block[: len(name)], block[156:157], block[124:136] = name, kind, size
    block[257:265], block[148:156] = b"ustar\x0000", b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def png(*chunks: bytes) -> bytes:
    """A PNG of 10 x 10 pixels with more chunks before them."""
    front = chunk(b"IHDR", struct.pack(">IIBBBBB", 10, 10, 8, 2, 0, 0, 0))
    pixels = chunk(b"IDAT", zlib.compress(bytes(310)))
    return b"\x89PNG\r\n\x1a\n" + front + b"".join(chunks) + pixels + chunk(b"IEND", b"")


def tiff(*tags: tuple[int, int, int, int]) -> bytes:
    """A TIFF whose directory holds (tag, type, count, value)."""
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + b"".join(struct.pack("<HHII", *tag) for tag in tags)


PICTURES = {
    "a PNG of 50,000 x 50,000": a_png_that_claims(50_000, 50_000),
    "a PNG of 2^31 x 2^31": a_png_that_claims((1 << 31) - 1, (1 << 31) - 1),
    "a PNG with a text of 256 MiB": png(chunk(b"zTXt", b"key\0\0" + ZEROS)),
    "a PNG with a profile of 256 MiB": png(chunk(b"iCCP", b"key\0\0" + ZEROS)),
    "a PNG whose pixels are 256 MiB": png(chunk(b"IDAT", ZEROS)),
    "a GIF of 65,535 x 65,535": b"GIF89a"
    + b"\xff" * 4
    + b"\0\0\0,\0\0\0\0"
    + b"\xff" * 4
    + b"\0\x08\x01\0\0;",
    "a WebP of 16,383 x 16,383": b"RIFF\x1e\0\0\0WEBPVP8L\x0a\0\0\0\x2f\xff\xff\xff\x0f" + bytes(9),
    "a BMP of 2^30 x 2^30": b"BM"
    + struct.pack("<IIIIiiHHIIIIII", 99, 0, 54, 40, 1 << 30, 1 << 30, 1, 24, *[0] * 6),
    "a PPM of 10^9 x 10^9": b"P6 1000000000 1000000000 255\n",
    "a JPEG of 65,500 x 65,500": b"\xff\xd8\xff\xc0\0\x11\x08"
    + b"\xff\xdc" * 2
    + b"\x03\x01\x11\0\x02\x11\0\x03\x11\0",
    "a TIFF of 2^31 x 2^31": tiff((256, 4, 1, 1 << 31), (257, 4, 1, 1 << 31), (258, 3, 1, 8), (262, 3, 1, 1)),
    "a TIFF with 2^32 strips": tiff((256, 4, 1, 9), (257, 4, 1, 9), (273, 4, (1 << 32) - 1, 8)),
}

PROGRESSIVE = saved(Image.new("RGB", (900, 900)), "JPEG", progressive=True)
LAST_SCAN = PROGRESSIVE[PROGRESSIVE.rindex(b"\xff\xda") : -2]
PICTURES["a JPEG of 4,000 scans"] = PROGRESSIVE[:-2] + LAST_SCAN * 4000 + PROGRESSIVE[-2:]

RECORDS = b"6 a=b\n" * ((1 << 20) // 6)
PAX = header(b"pax", b"x", b"%011o\0" % len(RECORDS)) + RECORDS + bytes(-len(RECORDS) % 512)
HUGE = b"\x80" + (1 << 62).to_bytes(11, "big")
TARS = {
    "a member of 2^62 bytes": header(b"0.jpg", b"0", HUGE),
    "a member of -1 bytes": header(b"0.jpg", b"0", b"\xff" * 12),
    "a long name of 2^62 bytes": header(b"0.jpg", b"L", HUGE),
    "pax headers of half a million records": PAX * 3 + bytes(1024),
    "members that are all links": header(b"0.jpg", b"2", b"00000000000\0") * 20_000 + bytes(1024),
}


def overlapping_names(samples: int) -> bytes:
    """A beton whose samples all have one long name, so that a small file would hold many long ones."""
    kinds = [BYTES, INT, BYTES]
    head, fields = np.zeros(1, HEADER), np.zeros(3, FIELD)
    rows, names = np.zeros(samples, rows_type(kinds)), b"n" * 4096
    fields["kind"], fields["name"] = kinds, [b"image", b"label", b"key"]
    start = head.nbytes + fields.nbytes + rows.nbytes
    rows["f2"]["pointer"], rows["f2"]["size"] = start, len(names)
    head["version"], head["fields"], head["page"], head["samples"] = 2, 3, 1 << 21, samples
    head["regions"] = start + len(names)
    return head.tobytes() + fields.tobytes() + rows.tobytes() + names


BETONS = {"a beton of overlapping names": overlapping_names(100_000)}
DEEP = b"[" * 1_000_000
INDEXES = {
    "a header of 2^63 bytes": (1 << 63).to_bytes(8, "little") + b"{}",
    "deep JSON": len(DEEP).to_bytes(8, "little") + DEEP,
    "arrays of 2^60": (lambda text: len(text).to_bytes(8, "little") + text)(
        json.dumps({"offsets": {"dtype": "I64", "shape": [1 << 60], "data_offsets": [0, 1 << 63]}}).encode()
    ),
}


def outcome(read: Callable[[], object]) -> str:
    """How a reader ended: with a value, or with the name of an error."""
    try:
        read()
    except Exception as error:
        return type(error).__name__
    return "value"


def outcomes(folder: Path) -> dict[str, str]:
    """What becomes of each input, in this process."""
    found = {}
    for decoder, how in ((decode, "Pillow"), (plane_decoder(), "libjpeg")):
        for name, data in PICTURES.items():
            found[f"{name} by {how}"] = outcome(lambda data=data, of=decoder: of(data, MAX_PIXELS))
    for name, data in TARS.items():
        (folder / "a.tar").write_bytes(data)
        found[name] = outcome(lambda: build_index(folder / "a.tar"))
    for name, data in BETONS.items():
        (folder / "a.beton").write_bytes(data)
        found[name] = outcome(lambda: build_index(folder / "a.beton"))
    found |= {name: outcome(lambda data=data: parse_index(data)) for name, data in INDEXES.items()}
    (folder / "dataset.json").write_bytes(DEEP)
    found["a deep manifest"] = outcome(lambda: read_manifest(folder))
    with (folder / "bad_samples.jsonl").open("wb") as file:
        file.truncate(1 << 26)
    found["a log of 64 MiB without a line"] = outcome(lambda: read_bad(folder / "bad_samples.jsonl"))
    return found


def limited(folder: Path) -> None:
    """Leaves the outcomes in a file, computed within the limits."""
    plane_decoder()(saved(Image.new("RGB", (9, 9)), "JPEG"), 100)  # compiles, or loads what was compiled
    used = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
    (folder / "outcomes.json").write_text(json.dumps(outcomes(folder)))


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """How each input ended in a process with little memory and time."""
    folder = tmp_path_factory.mktemp("limits")
    code = f"from pathlib import Path; from {__name__} import limited; limited(Path({str(folder)!r}))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    return json.loads((folder / "outcomes.json").read_text())


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="the limit needs Linux")
@pytest.mark.parametrize(
    ("names", "ends"),
    [
        ([f"{name} by Pillow" for name in PICTURES], {"BadSample", "value"}),
        ([f"{name} by libjpeg" for name in PICTURES], {"BadSample", "value"}),
        (list(TARS), {"ShardError", "value"}),
        (list(BETONS), {"ShardError"}),
        (list(INDEXES), {"ValueError"}),
        (["a deep manifest"], {"ValueError"}),
        (["a log of 64 MiB without a line"], {"value"}),
    ],
    ids=["pillow", "libjpeg", "tars", "betons", "indexes", "manifest", "log"],
)
def test_inputs_made_to_cost_memory_or_time_cost_little_of_either(found, names, ends):
    assert {name: found[name] for name in names if found[name] not in ends} == {}
