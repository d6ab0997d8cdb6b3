"""Images per second of one core: this loader beside the official DINO transforms, in one process.

python -m tests.benchmarks.loader FOLDER [--images 128] [--small]

Both read the same files and cut 2 x 224 + 8 x 96 (2 x 28 + 4 x 12 with --small). The official side is
torchvision's transforms on Pillow images, one image after the other, without the cost of a DataLoader's
processes. Time is CPU time of the process, so that other work on the machine matters less; the two alternate,
and the best round of each counts.
"""

import argparse
import io
import time
from collections.abc import Callable

import torch
from PIL import Image, ImageFilter
from torchvision import transforms

from pipelines.crops import Crops, LocalCrops, MultiCrop
from pipelines.loader import Data, Loader
from pipelines.source import Source, open_source

ROUNDS = 4


class OfficialBlur:
    """Pillow's Gaussian blur with a radius of 0.1 to 2, with a probability."""

    def __init__(self, probability: float):
        self.probability = probability

    def __call__(self, image: Image.Image) -> Image.Image:
        if torch.rand(()) >= self.probability:
            return image
        return image.filter(ImageFilter.GaussianBlur(float(torch.empty(()).uniform_(0.1, 2.0))))


def official(crops: MultiCrop) -> Callable[[Image.Image], list[torch.Tensor]]:
    """The ten transforms of the paper's code (specification: `pipelines.crops`)."""

    def view(group: Crops, v: int) -> transforms.Compose:
        jitter = transforms.ColorJitter(group.brightness, group.contrast, group.saturation, group.hue)
        return transforms.Compose(
            [
                transforms.RandomResizedCrop(
                    (group.height, group.width),
                    group.scale,
                    group.aspect,
                    transforms.InterpolationMode.BICUBIC,
                ),
                transforms.RandomHorizontalFlip(group.flip),
                transforms.RandomApply([jitter], group.jitter),
                transforms.RandomGrayscale(group.grey),
                OfficialBlur(group.per_view("blur")[v]),
                transforms.RandomSolarize(group.solarise_threshold, group.per_view("solarise")[v]),
                transforms.ToTensor(),
                transforms.Normalize(crops.mean, crops.std),
            ]
        )

    views = [view(group, v) for group in crops.groups.values() for v in range(group.count)]
    return lambda image: [cut(image) for cut in views]


def official_round(source: Source, crops: MultiCrop, images: int) -> float:
    cut = official(crops)
    begun = time.process_time()
    for sample in range(images):
        cut(Image.open(io.BytesIO(source.read(sample))).convert("RGB"))
    return images / (time.process_time() - begun)


def our_round(source: Source, crops: MultiCrop, images: int) -> float:
    loader = Loader(Data(crops=crops, threads=0), source, batch=32, seed=0, steps=images // 32)
    begun = time.process_time()
    for _ in loader:
        pass
    return images // 32 * 32 / (time.process_time() - begun)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder")
    parser.add_argument("--images", type=int, default=128)
    parser.add_argument("--small", action="store_true")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    source = open_source(asked.folder)
    small = MultiCrop(global_crops=Crops(size=28), local_crops=LocalCrops(count=4, size=12))
    crops, images = small if asked.small else MultiCrop(), min(asked.images, len(source))
    our_round(source, crops, 64)  # compiles, or loads what was compiled
    rounds = [
        (official_round(source, crops, images), our_round(source, crops, images)) for _ in range(ROUNDS)
    ]
    theirs, ours = (max(column) for column in zip(*rounds))
    print(f"official transforms  {theirs:8.1f} images/s of CPU time")
    print(f"this loader          {ours:8.1f} images/s of CPU time   {ours / theirs:.1f} times")


if __name__ == "__main__":
    main()
