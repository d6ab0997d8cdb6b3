"""Plain ffcv 1.0.2 in a process of its own, because its writer forks and its loader sets threads for all.

`python -m tests.pipelines.plain_ffcv write FOLDER` writes a beton for each way in which ffcv stores an image;
`... read BETON` loads a beton of ours through ffcv's Loader and prints what it finds, as JSON.
"""

import hashlib
import json
import sys
import warnings
from pathlib import Path

import numpy as np

from tests.pipelines.pictures import encoded, picture

COUNT = 6
MODES = {
    "raw": {"write_mode": "raw"},
    "jpg": {"write_mode": "jpg", "jpeg_quality": 95},
    "smart": {"write_mode": "smart", "smart_threshold": 4000, "jpeg_quality": 95},
    "proportion": {"write_mode": "proportion", "compress_probability": 0.5, "jpeg_quality": 95},
}


def pixels(number: int) -> np.ndarray:
    """The image of a sample; some are above the threshold of `smart`, some below, all of different sides."""
    return np.array(picture(number, 30 + 8 * (number % 3), 33 + number))


class Samples:
    """What is written: an image, its label, and a float that nobody asks for."""

    def __init__(self, *, as_bytes: bool) -> None:
        self.as_bytes = as_bytes

    def __len__(self) -> int:
        return COUNT

    def __getitem__(self, number: int) -> tuple:
        image = pixels(number)
        if self.as_bytes:
            image = np.frombuffer(encoded(image), dtype=np.uint8)
        return (image, number % 3, 0.5)


def write(folder: Path) -> None:
    from ffcv.fields import BytesField, FloatField, IntField, RGBImageField
    from ffcv.writer import DatasetWriter

    fields = {name: RGBImageField(**options) for name, options in MODES.items()} | {"bytes": BytesField()}
    for name, field in fields.items():
        writer = DatasetWriter(
            str(folder / f"{name}.beton"),
            {"picture": field, "number": IntField(), "weight": FloatField()},
            num_workers=2,
        )
        writer.from_indexed_dataset(Samples(as_bytes=name == "bytes"), chunksize=2)


def read(beton: str) -> None:
    from ffcv.fields.basics import IntDecoder
    from ffcv.fields.bytes import BytesDecoder
    from ffcv.loader import Loader, OrderOption
    from ffcv.reader import Reader

    sizes = Reader(beton).metadata["f0"]["size"].tolist()
    for os_cache in (True, False):
        pipelines = {"image": [BytesDecoder()], "label": [IntDecoder()], "key": [BytesDecoder()]}
        loader = Loader(
            beton, 1, num_workers=1, order=OrderOption.SEQUENTIAL, os_cache=os_cache, pipelines=pipelines
        )
        for number, (image, label, key) in enumerate(loader):
            digest = hashlib.sha256(image[0, : sizes[number]].tobytes()).hexdigest()
            name = key[0].tobytes().rstrip(b"\0").decode()
            sys.stdout.write(json.dumps([digest, int(label[0, 0]), name]) + "\n")


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    {"write": lambda path: write(Path(path)), "read": read}[sys.argv[1]](sys.argv[2])
