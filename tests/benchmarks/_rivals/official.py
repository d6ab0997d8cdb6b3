"""The official recipe: torchvision's transforms of Pillow images, in a DataLoader and without one."""

import io
from collections.abc import Callable

import torch
from PIL import Image, ImageFilter
from torch.utils.data import Dataset
from torchvision import transforms

from pipelines.crops import Crops, MultiCrop
from pipelines.source import Source
from tests.benchmarks._rivals.rival import Rival, Run, in_a_data_loader, views_of

Cut = Callable[[Image.Image], list[torch.Tensor]]


class OfficialBlur:
    """Pillow's Gaussian blur with a radius of 0.1 to 2, with a probability."""

    def __init__(self, probability: float):
        self.probability = probability

    def __call__(self, image: Image.Image) -> Image.Image:
        if torch.rand(()) >= self.probability:
            return image
        return image.filter(ImageFilter.GaussianBlur(float(torch.empty(()).uniform_(0.1, 2.0))))


def official(crops: MultiCrop) -> Cut:
    """The ten transforms of the paper's code (specification: `pipelines.crops`)."""

    def view(group: Crops, v: int) -> transforms.Compose:
        jitter = transforms.ColorJitter(group.brightness, group.contrast, group.saturation, group.hue)
        size, cubic = (group.height, group.width), transforms.InterpolationMode.BICUBIC
        return transforms.Compose(
            [
                transforms.RandomResizedCrop(size, group.scale, group.aspect, cubic),
                transforms.RandomHorizontalFlip(group.flip),
                transforms.RandomApply([jitter], group.jitter),
                transforms.RandomGrayscale(group.grey),
                OfficialBlur(group.per_view("blur")[v]),
                transforms.RandomSolarize(group.solarise_threshold, group.per_view("solarise")[v]),
                transforms.ToTensor(),
                transforms.Normalize(crops.mean, crops.std),
            ]
        )

    views = [view(group, v) for group, v in views_of(crops)]
    return lambda image: [cut(image) for cut in views]


class Images(Dataset):
    """The files of a source through a function of the Pillow image."""

    def __init__(self, source: Source, cut: Callable[[Image.Image], list]):
        self.source, self.cut = source, cut

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, sample: int) -> list:
        return self.cut(Image.open(io.BytesIO(self.source.read(sample))).convert("RGB"))


def _in_a_loader(source: Source, crops: MultiCrop, batch: int, threads: int) -> Run:
    return in_a_data_loader(Images(source, official(crops)), batch, max(1, threads))


def _alone(source: Source, crops: MultiCrop, batch: int, threads: int) -> Run:
    assert threads == 0
    return in_a_data_loader(Images(source, official(crops)), batch, 0)


IN_A_LOADER = Rival("official transforms in a DataLoader", (), _in_a_loader)
ALONE = Rival("official transforms without one", (), _alone, in_two=False)
