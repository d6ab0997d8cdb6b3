"""What the report of a pack promises: sizes as they are on disk, rates that were measured."""

import io

from PIL import Image

from pipelines.gain import gain
from pipelines.pack import Packing, pack
from pipelines.source import open_source
from tests.pipelines.storage import folder, picture


def test_the_gain_tells_bytes_and_rates_before_and_after(tmp_path):
    (tmp_path / "d").mkdir()
    for number in range(12):
        image = Image.open(io.BytesIO(picture(number, size=(600, 400))))
        image.save(tmp_path / "d" / f"{number:02d}.jpg", progressive=True, quality=95)
    packed = pack(tmp_path / "d", tmp_path / "out", Packing(max_side=100, holdout=0.25), progress=False)
    found = gain(tmp_path / "d", packed, sample=8)
    assert found.before.images == found.after.images == 12
    assert found.before.bytes == open_source(tmp_path / "d").stored_bytes
    assert found.after.bytes == sum(path.stat().st_size for path in (tmp_path / "out").rglob("*.tar"))
    assert found.after.bytes < found.before.bytes and found.after.rate > 2 * found.before.rate > 0
    assert "images/s a core" in str(found) and "8 images" in str(found)


def test_bad_images_do_not_count_in_a_rate(tmp_path):
    root = folder(tmp_path / "d", each=5)
    (root / "cat" / "bad.jpg").write_bytes(b"")
    packed = pack(root, tmp_path / "out", Packing(max_bad_fraction=0.5), progress=False)
    found = gain(root, packed)
    assert (found.before.images, found.after.images) == (11, 10)
