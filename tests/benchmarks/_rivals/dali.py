"""DALI's operators on the CPU, which need no GPU: a pipeline without a device."""

import itertools

import numpy as np
import torch

from pipelines.crops import Crops, MultiCrop
from pipelines.source import Source
from tests.benchmarks._rivals.rival import Rival, Run, views_of


def _build(source: Source, crops: MultiCrop, batch: int, threads: int) -> Run:
    from nvidia.dali import fn, pipeline_def, types

    levels = {"mean": [255 * x for x in crops.mean], "std": [255 * x for x in crops.std]}

    def happens(probability: float) -> object:
        return fn.random.coin_flip(probability=probability, dtype=types.BOOL)

    def about_one(spread: float) -> object:
        return fn.random.uniform(range=(max(0.0, 1 - spread), 1 + spread))

    def twist(image: object, group: Crops) -> object:
        turn = 360 * group.hue
        return fn.color_twist(
            image,
            brightness=about_one(group.brightness),
            contrast=about_one(group.contrast),
            saturation=about_one(group.saturation),
            hue=fn.random.uniform(range=(-turn, turn)),
        )

    def solarised(image: object, threshold: int) -> object:
        bright = image >= np.uint8(threshold)
        return fn.cast(bright * (255 - image) + (bright ^ True) * image, dtype=types.UINT8)

    @pipeline_def(
        batch_size=batch,
        num_threads=max(1, threads),
        device_id=None,
        enable_conditionals=True,
        exec_async=False,  # or batches of the next pass would be made outside this one
        exec_pipelined=False,
    )
    def pipeline() -> tuple:
        encoded = fn.external_source(source=batches(), dtype=types.UINT8, ndim=1)
        pixels = fn.decoders.image(encoded, device="cpu", output_type=types.RGB)
        made = []
        for group, v in views_of(crops):  # conditionals inside a comprehension would not be seen
            made.append(view(pixels, group, v))
        return tuple(made)

    def batches() -> object:
        for first in itertools.cycle(range(0, len(source) // batch * batch, batch)):
            yield [np.frombuffer(source.read(i), np.uint8) for i in range(first, first + batch)]

    def view(pixels: object, group: Crops, v: int) -> object:
        image = fn.random_resized_crop(
            pixels,
            size=(group.height, group.width),
            random_area=group.scale,
            random_aspect_ratio=group.aspect,
            interp_type=types.INTERP_CUBIC,
            antialias=True,
        )
        if happens(group.jitter):
            image = twist(image, group)
        if happens(group.grey):
            image = fn.saturation(image, saturation=0.0)
        if happens(group.per_view("blur")[v]):
            image = fn.gaussian_blur(image, sigma=fn.random.uniform(range=group.blur_sigma))
        if happens(group.per_view("solarise")[v]):
            image = solarised(image, group.solarise_threshold)
        mirror = fn.random.coin_flip(probability=group.flip)
        return fn.crop_mirror_normalize(
            image, dtype=types.FLOAT, output_layout="CHW", mirror=mirror, **levels
        )

    made = pipeline()
    made.build()

    def run(images: int) -> int:
        moved = 0
        for _ in range(images // batch):
            moved += sum(torch.from_dlpack(views.as_tensor()).nbytes for views in made.run())
        return moved

    return run


RIVAL = Rival(
    "DALI on the CPU",
    ("nvidia.dali",),
    _build,
    differs="hue turned linearly, contrast about mid-grey, colours in a fixed order",
)
