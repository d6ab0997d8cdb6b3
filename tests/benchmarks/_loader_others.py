"""Other loaders with the same views: the official recipe, and whatever else is installed."""

import importlib
import io
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from PIL import Image, ImageFilter
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from pipelines.crops import Crops, MultiCrop
from pipelines.source import Source

OFFICIAL = "official transforms in a DataLoader"

Run = Callable[[int], int]


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

    views = [view(group, v) for group in crops.groups.values() for v in range(group.count)]
    return lambda image: [cut(image) for cut in views]


class Images(Dataset):
    """The files of a source through a function of the Pillow image."""

    def __init__(self, source: Source, cut: Callable[[Image.Image], list[torch.Tensor]]):
        self.source, self.cut = source, cut

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, sample: int) -> list[torch.Tensor]:
        return self.cut(Image.open(io.BytesIO(self.source.read(sample))).convert("RGB"))


def _passes(dataset: Dataset, batch: int, workers: int) -> Run:
    def run(images: int) -> int:
        part = torch.utils.data.Subset(dataset, range(images))
        loader = DataLoader(part, batch_size=batch, num_workers=workers)
        return sum(tensor.nbytes for views in loader for tensor in views)

    return run


def _webdataset(source: Source, crops: MultiCrop, batch: int) -> Run:
    """webdataset's pipeline over the same bytes, with the official transforms."""
    import webdataset

    cut = official(crops)

    def run(images: int) -> int:
        def samples() -> Iterator[dict]:
            for i in range(images):
                yield {"__key__": str(i), "jpg": source.read(i)}

        pipeline = webdataset.DataPipeline(
            samples, webdataset.decode("pilrgb"), webdataset.to_tuple("jpg"), webdataset.map_tuple(cut)
        )
        moved, views = 0, []
        for (one,) in pipeline:
            views.append(one)
            if len(views) == batch:
                moved += sum(torch.stack(group).nbytes for group in zip(*views))
                views = []
        return moved

    return run


def _albumentations(source: Source, crops: MultiCrop, batch: int) -> Run:
    """albumentations on OpenCV, whose bicubic has no antialiasing."""
    import albumentations as a
    import cv2

    cv2.setNumThreads(1)

    def view(group: Crops, v: int) -> Callable:
        jitter = a.ColorJitter(
            *[(1 - x, 1 + x) for x in (group.brightness, group.contrast, group.saturation)],
            (-group.hue, group.hue),
            p=group.jitter,
        )
        size = (group.height, group.width)
        return a.Compose(
            [
                a.RandomResizedCrop(
                    size, scale=group.scale, ratio=group.aspect, interpolation=cv2.INTER_CUBIC
                ),
                a.HorizontalFlip(p=group.flip),
                jitter,
                a.ToGray(p=group.grey),
                a.GaussianBlur(blur_limit=0, sigma_limit=group.blur_sigma, p=group.per_view("blur")[v]),
                a.Solarize(p=group.per_view("solarise")[v]),
                a.Normalize(crops.mean, crops.std),
                a.ToTensorV2(),
            ]
        )

    views = [view(group, v) for group in crops.groups.values() for v in range(group.count)]

    def run(images: int) -> int:
        moved, held = 0, []
        for sample in range(images):
            encoded = np.frombuffer(source.read(sample), np.uint8)
            pixels = cv2.cvtColor(cv2.imdecode(encoded, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
            held.append([cut(image=pixels)["image"] for cut in views])
            if len(held) == batch:
                moved += sum(torch.stack(group).nbytes for group in zip(*held))
                held = []
        return moved

    return run


def _torchvision_v2(source: Source, crops: MultiCrop, batch: int) -> Run:
    """torchvision's second version, on uint8 tensors."""
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
                v2.RandomApply([v2.GaussianBlur(23, group.blur_sigma)], group.per_view("blur")[v]),
                v2.RandomSolarize(group.solarise_threshold, group.per_view("solarise")[v]),
                v2.ToDtype(torch.float32, scale=True),
                v2.Normalize(crops.mean, crops.std),
            ]
        )

    views = [view(group, v) for group in crops.groups.values() for v in range(group.count)]
    to_image = v2.PILToTensor()
    return _passes(Images(source, lambda image: [cut(to_image(image)) for cut in views]), batch, 0)


def _ffcv(source: Source, crops: MultiCrop, batch: int) -> Run:
    """FFCV's own decoders, one a view, each of which decodes again: crops and flips only, no colours."""
    from ffcv.fields import RGBImageField
    from ffcv.fields.decoders import RandomResizedCropRGBImageDecoder
    from ffcv.loader import Loader, OrderOption
    from ffcv.pipeline.pipeline_spec import PipelineSpec
    from ffcv.transforms import RandomHorizontalFlip, ToTensor
    from ffcv.writer import DatasetWriter

    folder = tempfile.TemporaryDirectory()  # lives as long as `run`, which refers to it
    path = Path(folder.name) / "images.beton"
    dataset = Images(source, lambda image: [np.asarray(image)])
    DatasetWriter(str(path), {"image": RGBImageField(write_mode="jpg")}, num_workers=1).from_indexed_dataset(
        dataset, shuffle_indices=False
    )
    views = [group for group in crops.groups.values() for _ in range(group.count)]
    names = ["image", *(f"view{v}" for v in range(1, len(views)))]

    def spec(group: Crops) -> PipelineSpec:
        decoder = RandomResizedCropRGBImageDecoder((group.height, group.width), group.scale, group.aspect)
        return PipelineSpec(
            "image", decoder=decoder, transforms=[RandomHorizontalFlip(group.flip), ToTensor()]
        )

    loaders: dict[int, Loader] = {}

    def run(images: int, keep: TemporaryDirectory = folder) -> int:
        if images not in loaders:
            pipelines = {name: spec(group) for name, group in zip(names, views)}
            order = {"order": OrderOption.SEQUENTIAL, "indices": range(images)}
            loaders[images] = Loader(str(path), batch, 1, pipelines=pipelines, os_cache=True, **order)
            for _ in loaders[images]:  # compiles
                pass
        return sum(tensor.nbytes for crops in loaders[images] for tensor in crops)

    return run


_OPTIONAL: dict[str, tuple[str, Callable[[Source, MultiCrop, int], Run]]] = {
    "webdataset with the official transforms": ("webdataset", _webdataset),
    "torchvision v2 on tensors": ("torchvision.transforms.v2", _torchvision_v2),
    "albumentations (no antialiasing)": ("albumentations", _albumentations),
    "FFCV's own decoders (crops and flips only)": ("ffcv", _ffcv),
}
# Named where they are missing, so that nobody thinks they were beaten.
_NOT_HERE = {"DALI": "nvidia.dali", "SPDL": "spdl", "kornia": "kornia"}


def found(source: Source, crops: MultiCrop, *, batch: int) -> Iterator[tuple[str, Run]]:
    """Names and passes of what is installed; says what is not."""
    dataset = Images(source, official(crops))
    yield OFFICIAL, _passes(dataset, batch, 1)
    yield "official transforms without one", _passes(dataset, batch, 0)
    for name, (module, build) in _OPTIONAL.items():
        try:
            importlib.import_module(module)
        except ImportError:
            print(f"left out: {name} ({module} is not installed)")
            continue
        yield name, build(source, crops, batch)
    for name, module in _NOT_HERE.items():
        try:
            importlib.import_module(module)
            print(f"left out: {name} (installed, but this benchmark has no pass for it)")
        except ImportError:
            print(f"left out: {name} ({module} is not installed)")
