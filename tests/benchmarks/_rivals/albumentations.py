"""albumentations on OpenCV's decoder, with its antialiasing (by area) and without."""

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from torch.utils.data import Dataset

from pipelines.crops import Crops, MultiCrop
from pipelines.source import Source
from tests.benchmarks._rivals.rival import Rival, Run, in_a_data_loader, views_of


class _Images(Dataset):
    """The files of a source through transforms of arrays."""

    def __init__(self, source: Source, views: list[Callable]):
        self.source, self.views = source, views

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, sample: int) -> list[torch.Tensor]:
        import cv2

        encoded = np.frombuffer(self.source.read(sample), np.uint8)
        pixels = cv2.imdecode(encoded, cv2.IMREAD_COLOR_RGB)
        return [cut(image=pixels)["image"] for cut in self.views]


def _build(source: Source, crops: MultiCrop, batch: int, threads: int, *, area: bool) -> Run:
    import albumentations as a
    import cv2

    cv2.setNumThreads(1)

    def view(group: Crops, v: int) -> Callable:
        jitter = [(1 - x, 1 + x) for x in (group.brightness, group.contrast, group.saturation)]
        threshold = group.solarise_threshold / 255
        return a.Compose(
            [
                a.RandomResizedCrop(
                    (group.height, group.width),
                    scale=group.scale,
                    ratio=group.aspect,
                    interpolation=cv2.INTER_CUBIC,
                    area_for_downscale="image" if area else None,
                ),
                a.HorizontalFlip(p=group.flip),
                a.ColorJitter(*jitter, (-group.hue, group.hue), p=group.jitter),
                a.ToGray(p=group.grey),
                a.GaussianBlur(blur_limit=0, sigma_limit=group.blur_sigma, p=group.per_view("blur")[v]),
                a.Solarize(threshold_range=(threshold, threshold), p=group.per_view("solarise")[v]),
                a.Normalize(crops.mean, crops.std),
                a.ToTensorV2(),
            ]
        )

    views = [view(group, v) for group, v in views_of(crops)]
    return in_a_data_loader(_Images(source, views), batch, threads)


ANTIALIASED = Rival(
    "albumentations, antialiased",
    ("albumentations", "cv2"),
    partial(_build, area=True),
    differs="OpenCV's area interpolation where a crop shrinks, for it has no antialiased bicubic",
)
CUBIC = Rival(
    "albumentations, not antialiased",
    ("albumentations", "cv2"),
    partial(_build, area=False),
    differs="bicubic without antialiasing",
)
