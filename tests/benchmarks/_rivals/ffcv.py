"""FFCV's own decoders, one a view, each of which decodes again."""

import tempfile
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from pipelines.crops import Crops, MultiCrop
from pipelines.source import Source
from tests.benchmarks._rivals.official import Images
from tests.benchmarks._rivals.rival import Rival, Run, views_of


def _build(source: Source, crops: MultiCrop, batch: int, threads: int) -> Run:
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
    views = [group for group, _ in views_of(crops)]
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
            loaders[images] = Loader(
                str(path), batch, max(1, threads), pipelines=pipelines, os_cache=True, **order
            )
        return sum(tensor.nbytes for crops in loaders[images] for tensor in crops)

    return run


RIVAL = Rival(
    "FFCV's own decoders",
    ("ffcv",),
    _build,
    differs="crops and flips only: it has no hue, greyscale, blur or solarise of its own; "
    "area interpolation; uint8 out; decodes once for each view",
)
