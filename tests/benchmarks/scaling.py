"""The plan of docs/scaling.md: what 1, 8, 64 and 1,024 GPUs need, from figures measured on this machine.

python -m tests.benchmarks.scaling PHOTOS [--disk FOLDER] [--teraflops 989] [--utilisation 0.4]
python -m tests.benchmarks.scaling --traffic-only

Measured: CPU time an image, bytes on the wire, sizes of indexes, the speed of a disk. Computed: arithmetic of
a step (raymask/flops.py), sizes of checkpoints, and what nodes fetch, by the loader's own order. Assumed: how
much of a GPU's peak a training reaches. Nothing here was run on that many GPUs.
"""

import argparse
import math
from dataclasses import dataclass
from pathlib import Path

from raymask import flops
from raymask.flops import ProjectionHead, Views, Vit, dino_step
from tests.benchmarks import _traffic, exchange
from tests.benchmarks._machine import machine
from tests.benchmarks._measured import MODES, Measured, block_parameters, measure, parameters
from tests.benchmarks._traffic import IMAGENET, LAION
from tests.benchmarks.order import table

GPUS = (1, 8, 64, 1024)
PIECE = 8 << 20  # bytes of one request for a part of a shard (pipelines.remote.download)
MODELS = {"ViT-S/16": flops.SMALL, "ViT-B/16": flops.BASE, "ViT-L/16": flops.LARGE}
NAMES = {
    "ViT-S/16": "vit_small_patch16_224",
    "ViT-B/16": "vit_base_patch16_224",
    "ViT-L/16": "vit_large_patch16_224",
}
WORLDS = ((8, 64), (64, 64), (1024, 64), (1024, 1024))  # ranks and lanes
CORES = (4, 8, 16, 32)
MANY = 1024  # members: so many that (n - 1) / n is 1
IMAGES_A_GPU = (32, 64, 128)


@dataclass(frozen=True)
class Gpu:
    """peak: floating-point operations a second in bfloat16; utilisation: the share that a step reaches"""

    peak: float
    utilisation: float

    def images(self, vit: Vit) -> float:
        """Images a second of DINO with 2 x 224 and 8 x 96, every token computed."""
        crops = {"global_crops": Views(2, 196), "local_crops": Views(8, 36)}
        step = dino_step(vit, ProjectionHead(), **crops, patches=False)
        return self.utilisation * self.peak / (2 * step.total)


def demand(gpu: Gpu, found: Measured) -> str:
    """What one GPU eats."""
    head = ["DINO, 2 x 224 + 8 x 96", "images/s of a GPU", *(f"cores a GPU, {mode}" for mode in MODES)]
    rows = []
    for name, vit in MODELS.items():
        rate = gpu.images(vit)
        cores = [f"{rate * found.core[mode]:.1f}" for mode in MODES]
        rows.append([name, f"{rate:,.0f}", *cores, f"{8e-9 * rate * found.image_bytes:.2f} Gbit/s"])
    return table([*head, "encoded images in"], rows)


def plans(gpu: Gpu, found: Measured) -> str:
    """What a run of so many GPUs needs in all."""
    head = ["GPUs", "model", "images/s", "cores, split", "cores, device", "from storage", "requests/s"]
    head += ["ImageNet epoch"]
    rows = []
    for gpus in GPUS:
        for name, vit in MODELS.items():
            rate = gpus * gpu.images(vit)
            cores = [f"{math.ceil(rate * found.core[mode]):,}" for mode in ("split", "device")]
            storage = rate * found.image_bytes
            epoch = 1_281_167 / rate
            cells = [f"{8e-9 * storage:,.1f} Gbit/s", f"{storage / PIECE:,.0f}", duration(epoch)]
            rows.append([f"{gpus:,}", name, f"{rate:,.0f}", *cores, *cells])
    return table(head, rows)


def remote(gpu: Gpu, found: Measured) -> str:
    """Whether a GPU's own cores keep up, and what the actors of one need where they do not."""
    head = ["model", "mode", *(f"{cores} cores a GPU" for cores in CORES)]
    head += ["remote: cores here", "cores elsewhere", "into the node, a GPU"]
    rows = []
    for name, vit in MODELS.items():
        rate = gpu.images(vit)
        for mode in MODES:
            here = rate * found.own[mode]
            there = rate * (found.remote[mode] - found.own[mode])
            can = [says(cores, rate * found.core[mode], here) for cores in CORES]
            wire = f"{8e-9 * rate * found.wire[mode]:.1f} Gbit/s"
            rows.append([name, mode, *can, f"{here:.1f}", f"{there:.1f}", wire])
    return table(head, rows)


def says(cores: int, local: float, here: float) -> str:
    """What `cores` of a GPU's own are enough for."""
    if local <= cores:
        return "local"
    return "remote" if here <= cores else "neither"


def per_image(found: Measured) -> str:
    head = [
        "mode",
        "local: CPU ms an image",
        "images/s of a core",
        "remote: CPU ms an image",
        "of which in training",
    ]
    rows = [
        [
            mode,
            f"{1e3 * found.core[mode]:.2f}",
            f"{1 / found.core[mode]:,.0f}",
            f"{1e3 * found.remote[mode]:.2f}",
            f"{1e3 * found.own[mode]:.2f}",
            f"{found.wire[mode] / 1e3:,.0f} kB",
        ]
        for mode in MODES
    ]
    return table([*head, "on the wire, an image"], rows)


def exchanged(gpu: Gpu) -> str:
    """What ranks tell each other, of float32 weights and gradients, where a step has so many images a GPU."""
    head = ["model", "sharing", "GB a step"]
    head += [f"Gbit/s of a node, {each} images a GPU" for each in IMAGES_A_GPU]
    rows = []
    for name, vit in MODELS.items():
        backbone, projection = parameters(NAMES[name])
        blocks = block_parameters(NAMES[name])
        weights = exchange.Weights(blocks, backbone - blocks + projection)
        for sharing, formula in exchange.FORMULAS.items():
            sent = formula(weights, members=MANY)
            wires = [f"{8e-9 * sent * gpu.images(vit) / each:,.0f}" for each in IMAGES_A_GPU]
            rows.append([name, sharing, f"{sent / 1e9:.2f}", *wires])
    return table(head, rows)


def checkpoints(found: Measured) -> str:
    """Student, teacher and AdamW's two moments in float32."""
    head = [
        "model",
        "backbone",
        "head",
        "checkpoint",
        *(f"written by {ranks:,} node{'s' * (ranks > 1)}" for ranks in (1, 8, 128)),
    ]
    rows = []
    for name in MODELS:
        backbone, projection = parameters(NAMES[name])
        size = 4 * 4 * (backbone + projection)
        times = [f"{size / nodes / found.disk:.1f} s" for nodes in (1, 8, 128)]
        rows.append(
            [name, f"{backbone / 1e6:.1f} M", f"{projection / 1e6:.1f} M", f"{size / 1e9:.2f} GB", *times]
        )
    return table(head, rows)


def indexes(found: Measured) -> str:
    head = ["data set", "all indexes", "index of a shard", "dataset.json"]
    rows = []
    for data in (IMAGENET, LAION):
        every = data.shards * data.images * found.index
        one, manifest = data.images * found.index, data.shards * found.manifest
        rows.append(
            [data.name, f"{every / 1e9:,.2f} GB", f"{one / 1e3:,.0f} kB", f"{manifest / 1e6:,.1f} MB"]
        )
    return table(head, rows)


def fetches() -> str:
    """The sequence of 8, 64 and 1,024 ranks, simulated."""
    head = [
        "data set",
        "ranks",
        "data.lanes",
        "lanes a rank",
        "GB a node fetches an epoch",
        "nodes that fetch a shard",
    ]
    rows = []
    for data in (IMAGENET, LAION):
        for world, lanes in WORLDS:
            _traffic.check(data, world=world, lanes=lanes, batch=max(1024, 4 * world))
            found = _traffic.traffic(data, world=world, lanes=lanes)
            cells = [f"{found.fetched.max() * data.shard_bytes / 1e9:,.1f}", f"{found.readers:.2f}"]
            cells += [f"{found.open:,}", f"{found.open_bytes / 1e9:,.1f}"]
            rows.append(
                [data.name.split(",")[0], f"{world:,}", f"{lanes:,}", str(found.lanes_of_rank), *cells]
            )
    return table([*head, "shards open in a node", "GB of them"], rows)


def caches() -> str:
    head = ["ranks", "data.lanes", "cache, of the data set", "epoch 1", "epoch 2", "epoch 3"]
    rows = []
    for world, lanes in ((8, 64), (64, 64), (1024, 1024)):
        for share in (0.25, 0.5, 1.0):
            counts = _traffic.fetched_with_cache(IMAGENET, world=world, lanes=lanes, share=share)
            rows.append([f"{world:,}", f"{lanes:,}", f"{share:.0%}", *(f"{count:,}" for count in counts)])
    return table(head, rows)


def schedule() -> str:
    rows = _traffic.schedule(LAION, world=1024, lanes=1024, batch=4096, nodes=3, each=2)
    return table(["node", "from step", "reads shards"], rows)


def duration(seconds: float) -> str:
    return f"{seconds / 60:.1f} min" if seconds >= 60 else f"{seconds:.1f} s"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photos", nargs="?")
    parser.add_argument("--images", type=int, default=192)
    parser.add_argument("--disk", type=Path, default=Path.cwd(), help="where checkpoints would be written")
    parser.add_argument("--teraflops", type=float, default=989, help="peak of a GPU in bfloat16, dense")
    parser.add_argument("--utilisation", type=float, default=0.4)
    parser.add_argument("--traffic-only", action="store_true")
    asked = parser.parse_args()
    if not asked.traffic_only:
        if asked.photos is None:
            parser.error("PHOTOS is missing: a folder or a zip of JPEGs")
        found, gpu = (
            measure(asked.photos, images=asked.images, disk=asked.disk),
            Gpu(asked.teraflops * 1e12, asked.utilisation),
        )
        print(
            f"{machine()}; photos of {found.image_bytes / 1e3:.0f} kB; disk {found.disk / 1e6:.0f} MB/s; ",
            end="",
        )
        print(f"a GPU of {asked.teraflops:g} Tflop/s at {asked.utilisation:.0%}\n")
        parts = (
            per_image(found),
            demand(gpu, found),
            plans(gpu, found),
            remote(gpu, found),
            checkpoints(found),
        )
        print(*parts, indexes(found), sep="\n\n", end="\n\n")
    print(exchanged(Gpu(asked.teraflops * 1e12, asked.utilisation)))
    print("\n" + fetches(), caches(), schedule(), sep="\n\n")


if __name__ == "__main__":
    main()
