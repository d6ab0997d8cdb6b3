"""Hostile bytes: every reader gives a value or the error it documents, soon, and in bounded memory."""

import json
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from pipelines.badlog import append_bad, read_bad
from pipelines.decode import BadSample, decode
from pipelines.formats.beton import BetonShard
from pipelines.formats.ffcv import FIELD, HEADER
from pipelines.formats.hashed import HashedFile
from pipelines.formats.tar import BLOCK
from pipelines.index import ShardError, ShardIndex, index_bytes, parse_index
from pipelines.manifest import NAME, Manifest, Shard, read_manifest, write_manifest
from pipelines.planes import plane_decoder, plane_of
from pipelines.scan import build_index
from tests.pipelines.pictures import picture as photo
from tests.pipelines.storage import picture, tar
from tests.pipelines.test_decode import saved

SECONDS = 5.0  # of processor time that no input of a few kilobytes may take
MEGABYTES = 32  # that none may need, beside what it brings
KINDS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM")
MAX_PIXELS = 100_000

# How many examples: a few in the default tests, many where there is time.
EXAMPLES = [pytest.param(100, id="short"), pytest.param(2000, id="long", marks=pytest.mark.slow)]


def fuzz(examples: int, inputs: st.SearchStrategy[Any], read: Callable[[Any], object]) -> None:
    """Calls `read` with many inputs. Fails on what it raises, and where one takes too long or too much."""

    @settings(max_examples=examples, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(inputs)
    def one(data: Any) -> None:
        begun = time.process_time()
        tracemalloc.start()
        try:
            read(data)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert time.process_time() - begun < SECONDS
        assert peak < (MEGABYTES << 20) + 40 * len(data)

    one()


def damaged(whole: bytes, *, places: list[int] | None = None) -> st.SearchStrategy[bytes]:
    """`whole` with some stretches overwritten (at random, or at `places` or just behind), and perhaps cut."""
    start = st.integers(0, len(whole) - 1)
    if places:
        start |= st.builds(lambda place, off: place + off, st.sampled_from(places), st.integers(0, 20))
    edit = st.tuples(start, st.binary(min_size=1, max_size=12) | st.sampled_from([b"\xff" * 8, b"\0" * 8]))

    def apply(edits: list[tuple[int, bytes]], end: int) -> bytes:
        data = bytearray(whole)
        for place, piece in edits:
            data[place : place + len(piece)] = piece
        return bytes(data[: end if end < len(whole) else None])

    return st.builds(apply, st.lists(edit, max_size=6), st.integers(0, 3 * len(whole)))


def with_checksums(data: bytes) -> bytes:
    """A tar whose every block that may be a header has the checksum of one."""
    parts = bytearray(data)
    for at in range(0, len(parts) - BLOCK + 1, BLOCK):
        if parts[at + 257 : at + 262] == b"ustar":
            parts[at + 148 : at + 156] = b" " * 8
            parts[at + 148 : at + 156] = b"%06o\0 " % sum(parts[at : at + BLOCK])
    return bytes(parts)


def a_tar(folder: Path) -> bytes:
    """One with labels of every kind, long names and pax headers."""
    members = [("0.jpg", picture(0)), ("0.cls", b"3"), ("1.png", b"png"), ("1.json", b'{"label": 2}')]
    members += [("x" * 150 + "/ü.webp", b"abc"), ("2.jpg", b""), ("2.txt", b"4"), ("3.pkl", b"\x80\x04.")]
    return tar(folder / "whole.tar", members).read_bytes()


def sound_index(path: Path) -> ShardIndex | None:
    """The index of a shard, which stays within its bytes; None where a sentence names the shard instead."""
    try:
        index = build_index(path)
    except ShardError as error:
        assert str(path) in str(error)
        return None
    parse_index(index_bytes(index))  # which checks that it stays within
    return index


@pytest.mark.parametrize("examples", EXAMPLES)
@pytest.mark.parametrize("checked", [False, True])
def test_any_tar_gives_an_index_within_its_bytes_or_a_sentence(tmp_path, examples, checked):
    whole, path = a_tar(tmp_path), tmp_path / "a.tar"
    fields = [at + field for at in range(0, len(whole), BLOCK) for field in (0, 100, 124, 156, 345)]

    def read(data: bytes) -> None:
        path.write_bytes(with_checksums(data) if checked else data)
        index = sound_index(path)
        assert index is None or all(isinstance(index.key(place), str) for place in range(len(index)))

    fuzz(examples, damaged(whole, places=fields), read)


def a_beton(folder: Path) -> bytes:
    """One with names and labels, as we write them; most of its two megabytes are the page that ffcv wants."""
    with (folder / "whole.beton").open("wb") as file:
        shard = BetonShard(HashedFile(file), folder)
        for number in range(4):
            shard.add(f"key{number}", "jpg", picture(number), number % 3 - 1)
        shard.close()
    return (folder / "whole.beton").read_bytes()


@pytest.mark.parametrize("examples", EXAMPLES)
def test_any_beton_gives_an_index_within_its_bytes_or_a_sentence(tmp_path, examples):
    whole, path = a_beton(tmp_path), tmp_path / "a.beton"
    rows = HEADER.itemsize + 3 * FIELD.itemsize
    tables = whole[: rows + 200]
    fields = [0, 2, 4, 8, 16, *range(HEADER.itemsize, rows, FIELD.itemsize), *range(rows, rows + 160, 8)]

    def read(data: bytes) -> None:
        path.write_bytes(data + whole[len(data) :] if len(data) == len(tables) else data)
        sound_index(path)

    fuzz(examples, damaged(tables, places=fields), read)


@pytest.mark.parametrize("examples", EXAMPLES)
def test_any_pax_header_is_read_or_refused(tmp_path, examples):
    whole, path = a_tar(tmp_path), tmp_path / "a.tar"
    at = whole.index(b" path=")
    start = at // BLOCK * BLOCK
    records = st.binary(max_size=2 * BLOCK) | st.lists(
        st.sampled_from([b"6 a=b\n", b"11 size=-9\n", b"9 size=1\n", b"000006\n", b"12 path=/..\n", b"0 "])
    ).map(b"".join)

    def read(data: bytes) -> None:
        header = bytearray(whole[start - BLOCK : start])
        header[124:136] = b"%011o\0" % len(data)
        path.write_bytes(with_checksums(bytes(header) + data + bytes(-len(data) % BLOCK) + whole))
        try:
            build_index(path)
        except ShardError:
            return

    fuzz(examples, records, read)


@pytest.mark.parametrize("examples", EXAMPLES)
def test_any_index_stays_within_its_shard_or_is_refused(tmp_path, examples):
    path = tmp_path / "a.tar"
    path.write_bytes(a_tar(tmp_path))
    whole = index_bytes(build_index(path))
    header = int.from_bytes(whole[:8], "little")

    def read(data: bytes) -> None:
        try:
            index = parse_index(data)
        except ValueError:
            return
        for place in range(len(index)):
            assert isinstance(index.key(place), str)
            assert (
                0 <= index.offsets[place] + index.sizes[place] <= index.shard_bytes or index.sizes[place] == 0
            )

    about = st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    )

    def rebuilt(name: str, value: object) -> bytes:
        table = json.loads(whole[8 : 8 + header])
        fields = json.loads(table["__metadata__"]["raymask"]) | {name: value}
        table["__metadata__"]["raymask"] = json.dumps(fields)
        front = json.dumps(table).encode()
        return len(front).to_bytes(8, "little") + front + whole[8 + header :]

    names = st.sampled_from(["shard_bytes", "count", "checksum", "quick", "names", "format"])
    fuzz(examples, damaged(whole, places=[0, 8, 8 + header]) | st.builds(rebuilt, names, about), read)


@pytest.mark.parametrize("examples", EXAMPLES)
def test_any_manifest_is_read_or_refused_in_a_sentence(tmp_path, examples):
    shards = tuple(Shard(f"{n}.tar", 5, 900, "blake2b:ab") for n in range(3))
    write_manifest(tmp_path, Manifest(("cat", "dög"), shards, "plan"))
    path = tmp_path / NAME
    whole = path.read_bytes()
    numbers = [whole.index(name) for name in (b'"images": 15', b'"images": 5', b'"bytes"', b'"name"')]
    swapped = st.sampled_from([b"1e400", b"-1", b"1" * 40, b"null", b'"../x"', b'"\\u0000"', b"[" * 3000])

    def read(data: bytes) -> None:
        path.write_bytes(data)
        try:
            manifest = read_manifest(tmp_path)
        except ValueError as error:
            assert str(path) in str(error)
            return
        assert manifest is not None and 0 <= manifest.images < 1 << 60

    fuzz(
        examples,
        damaged(whole, places=numbers) | st.builds(lambda new: whole.replace(b"5,", new + b","), swapped),
        read,
    )


@pytest.mark.parametrize("examples", EXAMPLES)
def test_any_bad_log_gives_samples_and_causes(tmp_path, examples):
    log = tmp_path / "bad_samples.jsonl"
    for sample in range(5):
        append_bad(log, sample=sample, key=f"{sample}.jpg", shard="a.tar", cause="zero bytes")
    whole = log.read_bytes()

    def read(data: bytes) -> None:
        log.write_bytes(data)
        found = read_bad(log)
        assert all(0 <= sample < 1 << 63 and isinstance(cause, str) for sample, cause in found.items())
        append_bad(log, sample=77, key="77.jpg", shard="a.tar", cause="zero bytes")
        assert read_bad(log) == {**found, 77: "zero bytes"}

    fuzz(examples, damaged(whole) | st.binary(max_size=300), read)


@pytest.mark.filterwarnings("ignore:.*:UserWarning")  # Pillow remarks on damaged tags
@pytest.mark.parametrize("examples", EXAMPLES)
@pytest.mark.parametrize("kind", KINDS)
def test_any_picture_is_decoded_within_its_limit_or_bad(examples, kind):
    def read(data: bytes) -> None:
        try:
            pixels = decode(data, MAX_PIXELS)
        except BadSample:
            return
        assert pixels.ndim == 3 and pixels.shape[2] == 3 and pixels.size <= 3 * MAX_PIXELS

    whole = picture(1, kind=kind)
    fuzz(examples, damaged(whole, places=list(range(0, min(len(whole), 64), 4))), read)


@pytest.mark.parametrize("examples", EXAMPLES)
@pytest.mark.parametrize("progressive", [False, True])
def test_any_jpeg_gives_planes_within_their_limit_or_is_bad(examples, progressive):
    decoder = plane_decoder()
    whole = saved(Image.fromarray(photo(2, 40, 50)), "JPEG", progressive=progressive)
    segments = [at for at in range(len(whole) - 1) if whole[at] == 0xFF and whole[at + 1]]
    decoder(whole, MAX_PIXELS)  # what is compiled at first use takes its own time

    def read(data: bytes) -> None:
        try:
            stored = decoder(data, MAX_PIXELS)
        except BadSample:
            return
        assert 0 < stored.height * stored.width <= MAX_PIXELS
        for number in range(int(stored.frame[2])):
            assert plane_of(stored.data, stored.frame, number).size <= 4 * MAX_PIXELS

    fuzz(examples, damaged(whole, places=segments), read)
    assert decoder(whole, MAX_PIXELS).height == 40, "what came before leaves no trace"
