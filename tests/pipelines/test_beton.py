"""The promises of betons: ours are FFCV's, FFCV's are read, and neither gives other batches than a tar."""

import io
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pipelines.crops import Crops, LocalCrops, MultiCrop
from pipelines.formats.beton import SMALLEST_PAGE, BetonShard, place
from pipelines.formats.ffcv import FIELD, HEADER, Beton, ffcv_disagrees
from pipelines.formats.hashed import HashedFile
from pipelines.index import index_path
from pipelines.loader import Data, Loader
from pipelines.pack import Packing, pack
from pipelines.source import ShardError, open_source
from tests.conftest import lacks
from tests.pipelines import plain_ffcv
from tests.pipelines.pictures import decibels
from tests.pipelines.storage import files, folder, picture, shard, tar

needs_ffcv = pytest.mark.skipif(lacks("ffcv"), reason="ffcv is not installed: `make ffcv` does it")
CROPS = MultiCrop(global_crops=Crops(size=16), local_crops=LocalCrops(count=2, size=8))


def quietly(source, out: Path, **settings):
    return pack(source, out, Packing(**settings), progress=False)


def without_manifest(root: Path) -> dict[str, bytes]:
    """The files of a packed folder; the manifest alone says from what it was packed."""
    return {name: data for name, data in files(root).items() if not name.endswith("dataset.json")}


@pytest.fixture(scope="module")
def packed(tmp_path_factory) -> Path:
    """A folder of images, packed as `tar` and as `beton`."""
    root = tmp_path_factory.mktemp("betons")
    folder(root / "images", classes=("cat", "dog", "owl"), each=9)
    quietly(root / "images", root / "tar", shard_images=7)
    quietly(root / "images", root / "beton", shard_images=7, format="ffcv")
    return root


@pytest.fixture(scope="module")
def foreign(tmp_path_factory) -> Path:
    """Betons that plain ffcv wrote."""
    root = tmp_path_factory.mktemp("foreign")
    _plain_ffcv("write", root)
    return root


def _plain_ffcv(verb: str, path: Path) -> str:
    command = [sys.executable, "-m", "tests.pipelines.plain_ffcv", verb, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_both_formats_hold_the_same_samples_under_the_same_numbers(packed):
    tars, betons = open_source(packed / "tar"), open_source(packed / "beton")
    assert tars.shard_sizes.tolist() == betons.shard_sizes.tolist() == [7, 7, 7, 6]
    assert tars.classes == betons.classes == ["cat", "dog", "owl"]
    for sample in range(27):
        for part in ("read", "label", "key"):
            assert getattr(tars, part)(sample) == getattr(betons, part)(sample)


def test_both_formats_give_the_same_batches_bit_for_bit(packed):
    settings = Data(crops=CROPS, threads=1)
    pairs = zip(
        *(
            Loader(settings, open_source(packed / name), batch=8, seed=5, steps=7)
            for name in ("tar", "beton")
        ),
        strict=True,
    )
    seen = 0
    for one, other in pairs:
        assert one.signature == other.signature
        assert all(torch.equal(getattr(one, n), getattr(other, n)) for n in ("samples", "labels", "epochs"))
        assert all(torch.equal(one.crops[name], other.crops[name]) for name in one.crops)
        seen += 1
    assert seen == 7


@pytest.mark.parametrize(("start", "end", "form"), [("tar", "beton", "ffcv"), ("beton", "tar", "webdataset")])
def test_a_converted_data_set_is_the_one_that_would_have_been_packed(packed, tmp_path, start, end, form):
    quietly(packed / start, tmp_path / "out", format=form)
    assert without_manifest(tmp_path / "out") == without_manifest(packed / end)
    assert open_source(tmp_path / "out").fingerprint == open_source(packed / end).fingerprint


def test_a_conversion_may_cut_and_mix_anew(packed, tmp_path):
    quietly(packed / "tar", tmp_path / "cut", shard_images=10)
    quietly(packed / "tar", tmp_path / "mixed", order="shuffled", seed=4)
    old, cut, mixed = (open_source(p) for p in (packed / "tar", tmp_path / "cut", tmp_path / "mixed"))
    names = [[source.key(sample) for sample in range(27)] for source in (old, cut, mixed)]
    assert names[0] == names[1] != names[2] and sorted(names[0]) == sorted(names[2])
    assert cut.shard_sizes.tolist() == [10, 10, 7]


def test_foreign_shards_keep_their_order_where_that_is_asked_for(tmp_path):
    shard(tmp_path / "a.tar", count=5)
    shard(tmp_path / "b.tar", count=4, seed=9)
    quietly([tmp_path / "a.tar", tmp_path / "b.tar"], tmp_path / "out", order="kept", format="ffcv")
    old, new = open_source(f"{tmp_path}/?.tar"), open_source(tmp_path / "out")
    assert new.shard_sizes.tolist() == [5, 4]
    assert [old.read(n) for n in range(9)] == [new.read(n) for n in range(9)]


def test_a_beton_without_its_index_is_read_by_its_own_tables(packed, tmp_path):
    names = sorted((packed / "beton").glob("*.beton"))
    for path in names:
        (tmp_path / path.name).write_bytes(path.read_bytes())
    bare, whole = open_source(tmp_path), open_source(packed / "beton")
    for sample in range(27):
        assert (bare.read(sample), bare.key(sample), bare.label(sample)) == (
            whole.read(sample), whole.key(sample), whole.label(sample)
        )  # fmt: skip


def test_many_threads_read_one_beton_at_once(packed):
    source, wrong = open_source(packed / "beton"), []
    expected = [source.read(sample) for sample in range(27)]

    def work() -> None:
        wrong.extend(n for _ in range(20) for n in range(27) if source.read(n) != expected[n])

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_images_larger_than_a_page_of_ffcv_get_larger_pages():
    sizes = np.array([10, 3 * SMALLEST_PAGE, 5, SMALLEST_PAGE])
    places, page = place(sizes, 4000)
    assert page == 4 * SMALLEST_PAGE
    assert (places // page == (places + sizes - 1) // page).all()
    assert (places[1:] >= places[:-1] + sizes[:-1]).all() and places[0] == 4000


@needs_ffcv
@pytest.mark.slow
def test_plain_ffcv_loads_what_we_write(packed):
    import hashlib
    import json

    beton = sorted((packed / "beton").glob("*.beton"))[0]
    source = open_source(packed / "beton")
    expected = [
        [hashlib.sha256(source.read(n)).hexdigest(), source.label(n), source.key(n)] for n in range(7)
    ]
    found = [json.loads(line) for line in _plain_ffcv("read", beton).splitlines()]
    assert found == 2 * expected  # from the page cache, and from the process's own


@needs_ffcv
def test_plain_ffcv_reads_the_same_tables(packed, foreign):
    betons = [*sorted((packed / "beton").glob("*.beton")), *sorted(foreign.glob("*.beton"))]
    assert len(betons) == 9
    assert [ffcv_disagrees(path) for path in betons] == [""] * 9


@needs_ffcv
@pytest.mark.parametrize("mode", [*plain_ffcv.MODES, "bytes"])
def test_betons_of_plain_ffcv_are_read_with_labels(foreign, mode):
    source = open_source(foreign / f"{mode}.beton")
    assert len(source) == plain_ffcv.COUNT and source.classes == ["0", "1", "2"]
    assert source.labels.tolist() == [0, 1, 2, 0, 1, 2]
    kinds = set()
    for sample in range(len(source)):
        image = Image.open(io.BytesIO(source.read(sample)))
        kinds.add(image.format)
        got, expected = np.asarray(image), plain_ffcv.pixels(sample)
        assert got.shape == expected.shape
        assert decibels(got, expected) > (100 if image.format == "PPM" else 27)
    assert kinds <= {"raw": {"PPM"}, "jpg": {"JPEG"}, "bytes": {"JPEG"}}.get(mode, {"PPM", "JPEG"})
    assert mode != "smart" or len(kinds) == 2


@needs_ffcv
def test_a_beton_of_plain_ffcv_trains_and_packs(foreign, tmp_path):
    source = open_source(foreign / "raw.beton")
    batch = next(iter(Loader(Data(crops=CROPS, threads=0), source, batch=4, seed=0, steps=1)))
    assert torch.isfinite(batch.crops["global"]).all()
    quietly(foreign / "raw.beton", tmp_path / "out", order="kept")
    tars = open_source(tmp_path / "out")
    for sample in range(plain_ffcv.COUNT):
        pixels = np.asarray(Image.open(io.BytesIO(tars.read(sample))))
        assert np.array_equal(pixels, plain_ffcv.pixels(sample))


def test_without_ffcv_betons_work_and_the_comparison_says_how_to_get_it(packed, monkeypatch):
    monkeypatch.setitem(sys.modules, "ffcv", None)
    monkeypatch.setitem(sys.modules, "ffcv.reader", None)
    beton = sorted((packed / "beton").glob("*.beton"))[0]
    assert len(open_source(beton)) == 7
    with pytest.raises(ValueError, match="`make ffcv` installs it"):
        ffcv_disagrees(beton)


def _damaged(packed: Path, tmp_path: Path, change) -> Path:
    data = bytearray(sorted((packed / "beton").glob("*.beton"))[0].read_bytes())
    path = tmp_path / "d.beton"
    path.write_bytes(bytes(change(data) or data))
    return path


def _set(dtype: np.dtype, name: str, value: int, *, at: int = 0):
    def change(data: bytearray) -> None:
        np.frombuffer(data, dtype=dtype, count=1, offset=at)[name] = value

    return change


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda data: data[:10], "truncated or damaged"),
        (lambda data: data[:2000], "truncated or damaged"),
        (lambda data: data[:-13], "truncated"),
        (lambda data: data[: len(data) // 2], "truncated"),
        (_set(HEADER, "version", 9), "no beton of FFCV 1"),
        (_set(HEADER, "fields", 0), "no beton of FFCV 1"),
        (_set(HEADER, "fields", 60_000), "no beton of FFCV 1"),
        (_set(HEADER, "samples", 1 << 62), "truncated or damaged"),
        (_set(HEADER, "regions", 0), "never finished"),
        (_set(HEADER, "regions", 1 << 63), "truncated"),
        (_set(FIELD, "kind", 255, at=HEADER.itemsize), "custom kind"),
        (_set(FIELD, "kind", 0, at=HEADER.itemsize), "holds no images"),
    ],
)
def test_a_damaged_beton_is_an_error_that_names_it(packed, tmp_path, change, sentence):
    with pytest.raises(ShardError, match=rf"d\.beton: .*({sentence})"):
        open_source(_damaged(packed, tmp_path, change))


def test_a_row_that_points_outside_is_an_error_that_names_the_beton(packed, tmp_path):
    row = HEADER.itemsize + 3 * FIELD.itemsize

    def change(data: bytearray) -> None:
        data[row : row + 8] = (1 << 40).to_bytes(8, "little")

    with pytest.raises(ShardError, match=r"d\.beton: .*beyond its end"):
        open_source(_damaged(packed, tmp_path, change))


def test_a_beton_that_changes_or_shrinks_in_use_is_named(packed, tmp_path):
    path = _damaged(packed, tmp_path, lambda data: None)
    source = open_source(path)
    source.read(0)
    os.truncate(path, 5000)
    with pytest.raises(ShardError, match=r"d\.beton is truncated"):
        source.read(6)
    with pytest.raises(ShardError, match=r"d\.beton: it is truncated or damaged"):
        open_source(path)


@pytest.mark.parametrize("number", [-100, -2, 1 << 20, 1 << 40])
def test_numbers_that_are_no_classes_count_as_no_label_and_are_noted(tmp_path, number):
    with (tmp_path / "a.beton").open("wb") as file:
        beton = BetonShard(HashedFile(file), tmp_path)
        for sample, label in enumerate((3, number, -1, number)):
            beton.add(f"{sample}", "jpg", picture(sample), label)
        beton.close()
    source = open_source(tmp_path)
    assert source.labels.tolist() == [3, -1, -1, -1] and len(source.classes) == 4
    (said,) = source.notes.sentences()
    assert said.endswith(f": 2, such as sample 1, whose field 'label' holds {number} in {tmp_path}/a.beton")


@given(data=st.data())
@settings(deadline=None, max_examples=150)
def test_flipped_bytes_are_an_error_or_stay_inside_the_file(packed, data):
    content = bytearray(sorted((packed / "beton").glob("*.beton"))[0].read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, 3600) | st.integers(0, len(content) - 1))] = data.draw(
            st.integers(0, 255)
        )
    content = content[: data.draw(st.just(len(content)) | st.integers(0, len(content)))]
    file = os.memfd_create("beton")
    try:
        os.write(file, content)
        beton = Beton.open(file, len(content))
        offsets, sizes, _ = beton.images()
        assert len(beton.labels()[0]) == len(beton.keys()) == len(offsets) <= len(content)
    except ValueError:
        return
    finally:
        os.close(file)
    assert (offsets >= 0).all() and (sizes >= 0).all() and (offsets + sizes <= len(content)).all()


def test_a_damaged_image_in_a_beton_is_replaced_and_not_black(packed, tmp_path):
    def change(data: bytearray) -> None:
        place = data.index(b"\xff\xd8\xff")
        data[place + 100 : place + 300] = bytes(200)

    source = open_source(_damaged(packed, tmp_path, change))
    settings = Data(crops=CROPS, threads=1, max_bad_fraction=0.2)
    with Loader(settings, source, batch=7, seed=0, steps=1) as loader:
        (batch,) = list(loader)
        assert loader.take_timings()["bad"] == 1
    assert (batch.crops["global"].std(dim=(-2, -1)) > 0.01).all()


def test_reading_betons_imports_no_ffcv_and_sets_no_threads(packed):
    script = (
        "import sys, torch\ntorch.set_num_threads(3)\n"
        "from pipelines.source import open_source\n"
        "source = open_source(sys.argv[1])\n[source.read(n) for n in range(len(source))]\n"
        "assert torch.get_num_threads() == 3 and 'ffcv' not in sys.modules and 'cv2' not in sys.modules\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(packed / "beton")], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_tars_and_betons_in_one_folder_are_refused(packed, tmp_path):
    shard(tmp_path / "a.tar")
    _damaged(packed, tmp_path, lambda data: None)
    with pytest.raises(ValueError, match="holds tars and betons"):
        open_source(tmp_path)


def test_a_compressed_tar_says_what_to_do(tmp_path):
    tar(tmp_path / "a.tar", [("a.jpg", b"x")]).rename(tmp_path / "a.tar.gz")
    with pytest.raises(ValueError, match="uncompress it first"):
        open_source(tmp_path / "a.tar.gz")


def test_a_beton_that_was_packed_has_its_index_and_its_checksum_beside_it(packed):
    betons = sorted((packed / "beton").glob("*.beton"))
    assert all(index_path(path).exists() for path in betons)
    assert not list((packed / "beton").glob(".*"))
