"""torchvision's second version of the transforms, on uint8 tensors."""

from collections.abc import Callable

import torch

from pipelines.crops import Crops, MultiCrop
from pipelines.source import Source
from tests.benchmarks._rivals.official import Images
from tests.benchmarks._rivals.rival import Rival, Run, in_a_data_loader, views_of

KERNEL = 13  # three standard deviations of the strongest blur to each side


def _build(source: Source, crops: MultiCrop, batch: int, threads: int) -> Run:
    from torchvision.transforms import v2

    def view(group: Crops, v: int) -> Callable:
        size, cubic = (group.height, group.width), v2.InterpolationMode.BICUBIC
        jitter = v2.ColorJitter(group.brightness, group.contrast, group.saturation, group.hue)
        return v2.Compose(
            [
                v2.RandomResizedCrop(size, group.scale, group.aspect, cubic, antialias=True),
                v2.RandomHorizontalFlip(group.flip),
                v2.RandomApply([jitter], group.jitter),
                v2.RandomGrayscale(group.grey),
                v2.RandomApply([v2.GaussianBlur(KERNEL, group.blur_sigma)], group.per_view("blur")[v]),
                v2.RandomSolarize(group.solarise_threshold, group.per_view("solarise")[v]),
                v2.ToDtype(torch.float32, scale=True),
                v2.Normalize(crops.mean, crops.std),
            ]
        )

    views = [view(group, v) for group, v in views_of(crops)]
    to_image = v2.PILToTensor()
    dataset = Images(source, lambda image: [cut(to_image(image)) for cut in views])
    return in_a_data_loader(dataset, batch, threads)


RIVAL = Rival("torchvision v2 on tensors", ("torchvision.transforms.v2",), _build)
