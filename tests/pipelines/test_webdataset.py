"""The promises to anyone's WebDataset: shards of plain `webdataset`, whatever they call images and labels."""

import pytest
import webdataset

from pipelines.inspect import inspect
from pipelines.pack import Packing, pack
from pipelines.source import ShardError, open_source
from pipelines.verify import Verify, verify
from tests.pipelines.storage import picture, tar


def written(path, samples):
    """A tar by webdataset's own writer; samples: dicts of members by extension."""
    with webdataset.TarWriter(str(path)) as writer:
        for number, sample in enumerate(samples):
            writer.write({"__key__": f"dir.with.dots/{number:04d}", **sample})
    return path


@pytest.mark.parametrize(
    ("extension", "kind"),
    [("jpg", "JPEG"), ("jpeg", "JPEG"), ("JPG", "JPEG"), ("JPEG", "JPEG"), ("png", "PNG"), ("PNG", "PNG"),
     ("webp", "WEBP"), ("img", "JPEG"), ("image", "PNG"), ("bmp", "BMP"), ("tiff", "TIFF"), ("ppm", "PPM"),
     ("left.jpg", "JPEG"), ("v1.0.png", "PNG")],
)  # fmt: skip
def test_images_are_found_under_every_usual_name(tmp_path, extension, kind):
    data = [picture(number, kind=kind) for number in range(3)]
    path = tar(tmp_path / "a.tar", [(f"{n}.{extension}", image) for n, image in enumerate(data)])
    source = open_source(path)
    assert [source.read(n) for n in range(3)] == data and (source.labels == -1).all()
    packed = pack(path, tmp_path / "out", progress=False)
    assert packed.splits[""].images == 3 and not packed.bad


@pytest.mark.parametrize(
    ("labels", "classes", "numbers"),
    [
        ([{"cls": 2}, {"cls": 0}, {}, {"cls": 1}], ["0", "1", "2"], [2, 0, -1, 1]),
        ([{"json": {"label": 1, "w": 5}}, {"json": {"w": 5}}, {"json": {"label": None}}],
         ["0", "1"], [1, -1, -1]),
        ([{"json": {"label": "dog"}}, {"json": {"class": "cat"}}, {"json": {"label": "dog"}}],
         ["cat", "dog"], [1, 0, 1]),
        ([{"json": {"class_name": "golden retriever"}}, {"json": {}}], ["golden retriever"], [0, -1]),
        ([{"json": {"label": "3"}}, {"json": {"label": 1.0}}], ["0", "1", "2", "3"], [3, 1]),
        ([{"json": 4}, {"json": {"cls": -1}}], [str(n) for n in range(5)], [4, -1]),
        ([{"txt": "7"}, {"txt": "2\n"}, {}], [str(n) for n in range(8)], [7, 2, -1]),
        ([{"txt": "n02084071"}, {"txt": "n01440764"}], ["n01440764", "n02084071"], [1, 0]),
        ([{"txt": "a photo of a dog"}, {"txt": "dog"}, {"txt": ""}], [], [-1, -1, -1]),
        ([{"cls": 1, "txt": "a photo"}, {"cls": 0, "txt": "dog"}], ["0", "1"], [1, 0]),
        ([{"class.cls": b"3"}, {"class.cls": b"0"}], ["0", "1", "2", "3"], [3, 0]),
        ([{"cls": b"tench"}, {"cls": b"drum set\n"}], ["drum set", "tench"], [1, 0]),
    ],
)  # fmt: skip
def test_labels_are_read_from_cls_json_and_txt(tmp_path, labels, classes, numbers):
    if any(isinstance(value, bytes) for label in labels for value in label.values()):
        rows = [
            [(f"{n}.jpg", picture(n)), *((f"{n}.{k}", v) for k, v in label.items())]
            for n, label in enumerate(labels)
        ]
        path = tar(tmp_path / "a.tar", [member for row in rows for member in row])
    else:
        path = written(tmp_path / "a.tar", [{"jpg": picture(n), **label} for n, label in enumerate(labels)])
    for source in (open_source(path), open_source(path)):  # scanned, and from the index that was stored
        assert (source.classes, source.labels.tolist()) == (classes, numbers)
        assert [source.label(n) for n in range(len(numbers))] == numbers


def test_named_classes_are_numbered_over_all_shards(tmp_path):
    for name, classes in (("a", ["dog", "ant"]), ("b", ["cat", "dog"]), ("c", [None, None])):
        samples = [
            {"jpg": picture(n), **({"json": {"label": c}} if c else {})} for n, c in enumerate(classes)
        ]
        written(tmp_path / f"{name}.tar", samples)
    source = open_source(tmp_path)
    assert source.classes == ["ant", "cat", "dog"]
    assert source.labels.tolist() == [2, 0, 1, 2, -1, -1]
    packed = pack(tmp_path, tmp_path / "out", Packing(order="kept", format="ffcv"), progress=False)
    again = open_source(tmp_path / "out")
    assert (
        packed.splits[""].classes == ("ant", "cat", "dog") and again.labels.tolist() == source.labels.tolist()
    )


def test_shards_that_name_classes_beside_shards_that_number_them_are_refused(tmp_path):
    written(tmp_path / "a.tar", [{"jpg": picture(0), "json": {"label": "dog"}}])
    written(tmp_path / "b.tar", [{"jpg": picture(0), "cls": 3}])
    with pytest.raises(ValueError, match=r"a\.tar names its classes and .*b\.tar numbers them"):
        open_source(tmp_path)
    mixed = [{"jpg": picture(0), "json": {"label": "dog"}}, {"jpg": picture(1), "cls": 3}]
    with pytest.raises(ShardError, match=r"c\.tar: some of its labels are numbers, others names"):
        open_source(written(tmp_path / "c.tar", mixed))


@pytest.mark.parametrize("number", [1 << 20, 1 << 31, 1 << 62])
def test_a_label_that_would_make_a_million_classes_counts_as_none(tmp_path, number):
    samples = [{"jpg": picture(0), "cls": number}, {"jpg": picture(1), "cls": 1}]
    for source in (open_source(written(tmp_path / "a.tar", samples)), open_source(tmp_path)):
        assert source.labels.tolist() == [-1, 1] and source.classes == ["0", "1"]
        (said,) = source.notes.sentences()
        assert "labels that are neither a number nor a name, and count as none: 1, such as" in said
        assert said.endswith(f"0000.cls, which holds b'{number}' in {tmp_path}/a.tar")


def test_keys_keep_their_folders_and_end_at_the_first_dot(tmp_path):
    source = open_source(written(tmp_path / "a.tar", [{"v1.0.jpg": picture(0), "cls": 1}]))
    assert source.key(0) == "dir.with.dots/0000" and source.labels.tolist() == [1]


def test_what_is_passed_over_in_foreign_shards_is_said_by_all_who_look_at_them(tmp_path):
    rows = [(f"v1.{number}.jpg", picture(number)) for number in range(3)]
    rows += [("2.jpg", picture(3)), ("2.cls", b"-5"), ("3.jpg", picture(4)), ("3.cls", b"1")]
    (tmp_path / "in").mkdir()
    path = tar(tmp_path / "in" / "a.tar", rows)
    images, labels = f": 2, such as v1.1.jpg in {path}", f": 1, such as 2.cls, which holds b'-5' in {path}"
    found = verify(path, Verify(fast=True), progress=False)
    assert found.whole and found.images == 3
    again = [pack(path, tmp_path / "out", progress=False) for _ in range(2)]
    for said in (found, inspect(path), inspect(tmp_path / "in"), *again):
        assert images in str(said) and labels in str(said)
    assert not inspect(tmp_path / "out").notes and inspect(tmp_path / "out").unlabelled == 2


def test_masks_captions_and_embeddings_beside_an_image_are_stepped_over(tmp_path):
    sample = {
        "seg.png": picture(1, kind="PNG"),
        "jpg": picture(0),
        "npy": b"\x93NUMPY",
        "caption.txt": "a dog",
    }
    source = open_source(written(tmp_path / "a.tar", [sample]))
    assert len(source) == 1 and source.read(0) == picture(0) and source.classes == []


def test_shards_of_shardwriter_are_named_by_braces_globs_and_lists_of_lists(tmp_path):
    with webdataset.ShardWriter(str(tmp_path / "s-%06d.tar"), maxcount=2, verbose=0) as writer:
        for number in range(7):
            writer.write({"__key__": f"{number:03d}", "jpg": picture(number), "cls": number % 2})
    (tmp_path / "some.txt").write_text(f"{tmp_path}/s-{{000000..000001}}.tar\n@{tmp_path}/more.txt\n")
    (tmp_path / "more.txt").write_text(f"{tmp_path}/s-00000[23].tar\n")
    names = [
        f"{tmp_path}/s-{{000000..000003}}.tar",
        f"{tmp_path}/s-*.tar",
        f"@{tmp_path}/some.txt",
        str(tmp_path),
    ]
    for name in names:
        source = open_source(name)
        assert [source.read(n) for n in range(7)] == [picture(n) for n in range(7)]
        assert source.shard_sizes.tolist() == [2, 2, 2, 1]


@pytest.mark.parametrize("name", ["../out.jpg", "/abs/x.jpg", "a/../../b.jpg"])
def test_names_that_lead_elsewhere_lead_nowhere(tmp_path, name):
    inside = tmp_path / "deep" / "er"
    inside.mkdir(parents=True)
    content = [(name, picture(0)), (name.replace(".jpg", ".cls"), b"1"), ("good.jpg", picture(1))]
    path = tar(inside / "t.tar", content)
    packed = pack(path, inside / "out", Packing(max_bad_fraction=1), progress=False)
    assert packed.bad == {"unsafe name": 1} and packed.splits[""].images == 1
    outside = [p for p in tmp_path.rglob("*") if p.is_file() and inside / "out" not in p.parents]
    assert sorted(p.name for p in outside) == ["t.tar", "t.tar.index.safetensors"]


def test_a_list_of_lists_that_turns_in_a_circle_is_refused(tmp_path):
    (tmp_path / "a.txt").write_text(f"@{tmp_path}/b.txt\n")
    (tmp_path / "b.txt").write_text(f"@{tmp_path}/a.txt\n")
    with pytest.raises(ValueError, match="in a circle"):
        open_source(f"@{tmp_path}/a.txt")
