"""kornia: crops by its Rust library, colours in batches by kornia.augmentation or by the Rust one, too."""

import random
from collections.abc import Callable

import numpy as np
import torch
from torch.utils.data import Dataset

from pipelines.crops import Crops, MultiCrop
from pipelines.source import Source
from tests.benchmarks._rivals.rival import Rival, Run, box, in_a_data_loader, passes, views_of

KERNEL = 13  # three standard deviations of the strongest blur to each side


def _crop(image: object, group: Crops) -> object:
    """An antialiased random resized crop, which kornia.augmentation does not have."""
    x, y, w, h = box(image.height, image.width, group)  # type: ignore[attr-defined]
    return image.crop(x, y, w, h).resize(group.width, group.height, "bicubic", True)  # type: ignore[attr-defined]


class _Batches(Dataset):
    """Whole batches, because kornia.augmentation works on many images of a size."""

    def __init__(self, source: Source, crops: MultiCrop, batch: int, images: int, after: list[Callable]):
        self.source, self.batch, self.images, self.after = source, batch, images, after
        self.views = views_of(crops)

    def __len__(self) -> int:
        return self.images // self.batch

    def __getitem__(self, number: int) -> list[torch.Tensor]:
        from kornia_rs.image import Image

        files = range(number * self.batch, (number + 1) * self.batch)
        images = [Image.decode(self.source.read(sample)) for sample in files]
        made = []
        for (group, _), after in zip(self.views, self.after):
            levels = np.stack([_crop(image, group).numpy() for image in images])  # type: ignore[attr-defined]
            made.append(after(torch.from_numpy(levels).permute(0, 3, 1, 2).contiguous() / 255))
        return made


def _batched(source: Source, crops: MultiCrop, batch: int, threads: int) -> Run:
    from kornia import augmentation as k

    def view(group: Crops, v: int) -> Callable:
        threshold = group.solarise_threshold / 255
        return k.AugmentationSequential(
            k.RandomHorizontalFlip(p=group.flip),
            k.ColorJitter(group.brightness, group.contrast, group.saturation, group.hue, p=group.jitter),
            k.RandomGrayscale(p=group.grey),
            k.RandomGaussianBlur((KERNEL, KERNEL), group.blur_sigma, p=group.per_view("blur")[v]),
            k.RandomSolarize((threshold, threshold), (0.0, 0.0), p=group.per_view("solarise")[v]),
            k.Normalize(torch.tensor(crops.mean), torch.tensor(crops.std)),
        )

    after = [view(group, v) for group, v in views_of(crops)]

    return passes(lambda images: _Batches(source, crops, batch, images, after), workers=threads)


class _Images(Dataset):
    """Image by image through the Rust library; solarise is numpy's, for it has none."""

    def __init__(self, source: Source, crops: MultiCrop):
        from kornia_rs.augmentations import ColorJitter

        self.source, self.crops, self.views = source, crops, views_of(crops)
        self.jitters = [
            ColorJitter(group.brightness, group.contrast, group.saturation, group.hue)
            for group, _ in self.views
        ]

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, sample: int) -> list[torch.Tensor]:
        from kornia_rs.image import Image

        image = Image.decode(self.source.read(sample))
        return [self._view(image, i) for i in range(len(self.views))]

    def _view(self, image: object, i: int) -> torch.Tensor:
        from kornia_rs.image import Image

        group, v = self.views[i]
        made = _crop(image, group)
        if random.random() < group.flip:
            made = made.flip_horizontal()  # type: ignore[attr-defined]
        if random.random() < group.jitter:
            made = self.jitters[i](made)
        if random.random() < group.grey:
            made = made.to_grayscale().to_rgb()  # type: ignore[attr-defined]
        if random.random() < group.per_view("blur")[v]:
            sigma = random.uniform(*group.blur_sigma)
            made = made.gaussian_blur(2 * int(np.ceil(3 * sigma)) + 1, sigma)  # type: ignore[attr-defined]
        if random.random() < group.per_view("solarise")[v]:
            levels = made.numpy()  # type: ignore[attr-defined]
            made = Image.fromarray(np.where(levels >= group.solarise_threshold, 255 - levels, levels))
        size = (group.width, group.height)
        floats = made.resize_normalize_to_tensor(*size, self.crops.mean, self.crops.std)  # type: ignore[attr-defined]
        return torch.from_numpy(floats.numpy())


def _rust(source: Source, crops: MultiCrop, batch: int, threads: int) -> Run:
    return in_a_data_loader(_Images(source, crops), batch, threads)


BATCHED = Rival(
    "kornia in batches, crops by kornia-rs",
    ("kornia", "kornia_rs"),
    _batched,
    differs="colours in one order for a batch",
)
RUST = Rival(
    "kornia-rs alone",
    ("kornia_rs",),
    _rust,
    differs="brightness is added rather than multiplied; solarise by numpy",
)
