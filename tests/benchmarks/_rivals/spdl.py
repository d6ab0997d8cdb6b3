"""SPDL's threads around FFmpeg: one filter graph for each image, from the decoder's frame to all views."""

import random

import numpy as np
import torch

from pipelines.crops import Crops, MultiCrop
from pipelines.source import Source
from tests.benchmarks._rivals.rival import Rival, Run, box, views_of

LUMA = np.array([0.299, 0.587, 0.114])
RGB_OF_YIQ = np.array([[1, 0.956, 0.619], [1, -0.272, -0.647], [1, -1.106, 1.703]])


def levels(brightness: float, contrast: float) -> str:
    """FFmpeg's `colorlevels` that scales by `brightness`, then spreads by `contrast` about mid-grey."""
    low = 0.5 * (1 - contrast)
    slope = brightness * contrast
    darkest, lightest = max(0.0, -low / slope), min(1.0, (1 - low) / slope)
    ends = (max(0.0, low), min(1.0, low + slope))
    return "colorlevels=" + ":".join(
        f"{c}imin={darkest:.4f}:{c}imax={lightest:.4f}:{c}omin={ends[0]:.4f}:{c}omax={ends[1]:.4f}"
        for c in "rgb"
    )


def mixer(saturation: float, hue: float) -> str:
    """FFmpeg's `colorchannelmixer` that scales the colours and turns them by `hue`, of a whole turn."""
    cos, sin = np.cos(2 * np.pi * hue), np.sin(2 * np.pi * hue)
    turn = np.array([[1, 0, 0], [0, cos, -sin], [0, sin, cos]])
    matrix = RGB_OF_YIQ @ turn @ np.linalg.inv(RGB_OF_YIQ)
    matrix = matrix @ (saturation * np.eye(3) + (1 - saturation) * np.outer(np.ones(3), LUMA))
    cells = (
        f"{o}{i}={np.clip(matrix[a, b], -2, 2):.4f}" for a, o in enumerate("rgb") for b, i in enumerate("rgb")
    )
    return "colorchannelmixer=" + ":".join(cells)


def _about_one(spread: float) -> float:
    return random.uniform(max(0.0, 1 - spread), 1 + spread)


def view(group: Crops, v: int, height: int, width: int) -> str:
    """The filters of one view, drawn anew."""
    x, y, w, h = box(height, width, group)
    filters = [f"crop={w}:{h}:{x}:{y}", f"scale={group.width}:{group.height}:flags=bicubic", "format=gbrp"]
    if random.random() < group.flip:
        filters.append("hflip")
    grey, saturation, hue = random.random() < group.grey, 1.0, 0.0
    if random.random() < group.jitter:
        filters.append(levels(_about_one(group.brightness), _about_one(group.contrast)))
        saturation, hue = _about_one(group.saturation), random.uniform(-group.hue, group.hue)
    if grey or saturation != 1:
        filters.append(mixer(0.0 if grey else saturation, hue))
    if random.random() < group.per_view("blur")[v]:
        filters.append(f"gblur=sigma={random.uniform(*group.blur_sigma):.4f}")
    if random.random() < group.per_view("solarise")[v]:
        filters.append(f"lutrgb={':'.join(_solarised(c, group.solarise_threshold) for c in 'rgb')}")
    return ",".join([*filters, "format=rgb24"])


def _solarised(channel: str, threshold: int) -> str:
    return f"{channel}=if(gte(val\\,{threshold})\\,255-val\\,val)"


def _build(source: Source, crops: MultiCrop, batch: int, threads: int) -> Run:
    import spdl.io
    from spdl.pipeline import PipelineBuilder

    views, workers = views_of(crops), max(1, threads)
    mean, std = (torch.tensor([255 * x for x in level]).view(3, 1, 1) for level in (crops.mean, crops.std))
    groups = [[i for i, (one, _) in enumerate(views) if one is group] for group in crops.groups.values()]

    def cut(sample: int) -> list:
        frame = spdl.io.decode_packets(spdl.io.demux_image(source.read(sample)), filter_desc=None)
        parts = [f"buffer=video_size={frame.width}x{frame.height}:pix_fmt={frame.pix_fmt}:time_base=1/25"]
        parts[0] += f",split={len(views)}" + "".join(f"[in{i}]" for i in range(len(views)))
        for i, (group, v) in enumerate(views):
            parts.append(f"[in{i}]{view(group, v, frame.height, frame.width)},buffersink@{i}")
        graph = spdl.io.FilterGraph(";".join(parts))
        graph.add_frames(frame)
        return [graph.get_frames(key=f"buffersink@{i}") for i in range(len(views))]

    def collate(images: list[list]) -> list[torch.Tensor]:
        made = []
        for members in groups:
            frames = [views[i] for i in members for views in images]
            pixels = spdl.io.to_torch(spdl.io.convert_frames(frames)).flatten(0, 1)
            floats = pixels.permute(0, 3, 1, 2).to(torch.float32, memory_format=torch.contiguous_format)
            made.append(floats.sub_(mean).div_(std))
        return made

    def run(images: int) -> int:
        pipeline = (
            PipelineBuilder()
            .add_source(range(images))
            .pipe(cut, concurrency=workers)
            .aggregate(batch)
            .pipe(collate)
            .add_sink(2)
            .build(num_threads=workers)
        )
        with pipeline.auto_stop():
            return sum(tensor.nbytes for made in pipeline for tensor in made)

    return run


RIVAL = Rival(
    "SPDL with FFmpeg's filters",
    ("spdl.io", "spdl.pipeline"),
    _build,
    differs="hue turned linearly, contrast about mid-grey, colours in a fixed order",
)
