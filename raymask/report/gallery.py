"""Pictures of a run: the views with their masks, what [CLS] looks at, and who is near whom."""

from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from torch import Tensor

from pipelines.batch import Batch
from pipelines.data import open_train_and_val
from pipelines.loader import Loader
from raymask.backbone import VisionBackbone
from raymask.evaluate.features import extract
from raymask.evaluate.knn import neighbours, unit
from raymask.evaluate.protocol import Evaluation, open_evaluation
from raymask.evaluate.splits import Split
from raymask.masks.attention import AttentionStrategy
from raymask.masks.disjoint import Disjoint
from raymask.methods.disjoint_views import draw_views
from raymask.methods.views import draw_masks, look
from raymask.progress import Progress
from raymask.report.facts import Facts
from raymask.report.pictures import heat, levels, masked, png
from raymask.streams import Rng

IMAGES = 16  # rows of a gallery
QUERIES, NEIGHBOURS, BANK = 10, 5, 2000


@dataclass(frozen=True)
class Picture:
    """A thumbnail; `note` is under it, `good` colours its edge (None: no edge)."""

    source: str
    note: str = ""
    good: bool | None = None


@dataclass(frozen=True)
class Gallery:
    """Rows of pictures below column titles."""

    columns: list[str]
    rows: list[list[Picture]]


def views(facts: Facts) -> Gallery:
    """The first batch of the run: each image's crops as the student sees them at the start."""
    batch = _first_batch(facts)
    hidden = _masks(facts, batch)
    patch = facts.trained.backbone.patch_size
    rows: list[list[Picture]] = [[] for _ in range(len(batch))]
    columns = []
    for group, crops in batch.crops.items():
        masked_views = len(hidden[group]) // len(crops) if group in hidden else 1
        for view, images in enumerate(crops.repeat(masked_views, 1, 1, 1, 1)):
            columns.append(f"{group} {view + 1}")
            for row, image in enumerate(images):
                pixels = levels(image, mean=facts.config.data.crops.mean, std=facts.config.data.crops.std)
                if group in hidden:
                    pixels = masked(pixels, hidden[group][view, row], patch=patch)
                rows[row].append(Picture(png(pixels)))
    return Gallery(columns, rows)


def _first_batch(facts: Facts) -> Batch:
    source, _ = open_train_and_val(facts.config.data)
    images = min(IMAGES, len(source))
    data = facts.config.data.model_copy(update={"augment": "cpu"})  # the same crops, without a device
    loader = Loader(data, source, batch=images, seed=facts.config.run.seed, steps=1)
    try:
        return next(iter(loader))
    finally:
        loader.close()


@torch.no_grad()
def _masks(facts: Facts, batch: Batch) -> dict[str, Tensor]:
    """True = hidden, [views, batch, patches] by group, as the run would draw them for this batch."""
    config, backbone = facts.config, facts.trained.backbone
    scores = None
    if isinstance(config.mask.strategy, AttentionStrategy):
        block = config.mask.strategy.block
        _, scores = look(backbone, batch.crops["global"], None, kind="token", attention_block=block)
    progress = Progress(step=0, steps=1, steps_per_epoch=1)
    rng = Rng(config.run.seed, 0)
    if isinstance(config.mask.strategy, Disjoint):  # several views of each crop
        rows = draw_views(config.mask, batch, backbone, progress, rng).hidden
        return {"global": rows.unflatten(0, (-1, len(batch)))}
    found = draw_masks(config.mask, batch, backbone, progress, rng, scores=scores)
    return {group: masks.hidden for group, masks in found.items()}


@torch.no_grad()
def attention(facts: Facts) -> Gallery:
    """Held-out images, what [CLS] of the last block looks at untrained and trained, and each head of it."""
    split = _spread(_looked_at(open_evaluation(facts.config)), IMAGES)
    images = torch.cat([batch.images for batch in split.batches()])
    trained = facts.trained.backbone
    untrained = facts.config.backbone.build(seed=facts.config.run.seed).eval()
    grid = trained.grid(*images.shape[-2:])
    before, after = _attention(untrained, images), _attention(trained, images)
    heads = after.shape[1]
    columns = ["image", "untrained", "trained", *(f"head {head + 1}" for head in range(heads))]
    rows = []
    for image, old, new in zip(images, before, after):
        pixels = levels(image, mean=facts.config.data.crops.mean, std=facts.config.data.crops.std)
        maps = [old.mean(0), new.mean(0), *new]
        rows.append([Picture(png(pixels)), *(Picture(png(heat(pixels, row, grid=grid))) for row in maps)])
    return Gallery(columns, rows)


def _attention(backbone: VisionBackbone, images: Tensor) -> Tensor:
    return backbone(images, attention=True)[1]["attention_heads"]


def nearest(facts: Facts) -> Gallery:
    """Held-out images and their nearest training images by the trained features."""
    evaluation = open_evaluation(facts.config)
    bank = _spread(evaluation.bank, BANK)
    asked = _spread(_looked_at(evaluation), QUERIES)
    features = [extract(facts.trained.backbone, split.batches()) for split in (bank, asked)]
    bank, asked = (replace(s, samples=f.samples.numpy()) for s, f in zip((bank, asked), features))
    found = neighbours(unit(features[0].cls), unit(features[1].cls), count=NEIGHBOURS + 1)
    rows = []
    for row, (places, similarities) in enumerate(zip(found[1].tolist(), found[0].tolist())):
        query = int(asked.samples[row])
        same = asked.source is bank.source
        near = [(p, s) for p, s in zip(places, similarities) if not same or int(bank.samples[p]) != query]
        shown = _thumbnails(replace(bank, samples=bank.samples[[p for p, _ in near[:NEIGHBOURS]]]), facts)
        label = int(features[1].labels[row])
        named = partial(_name, evaluation)
        (own,) = _thumbnails(replace(asked, samples=asked.samples[[row]]), facts)
        pictures = [Picture(own, named(label))]
        for source, (place, similarity) in zip(shown, near):
            other = int(features[0].labels[place])
            good = None if label < 0 or other < 0 else label == other
            pictures.append(Picture(source, f"{named(other)} {similarity:.2f}".strip(), good))
        rows.append(pictures)
    return Gallery(["query", *(f"nearest {n + 1}" for n in range(NEIGHBOURS))], rows)


def _name(evaluation: Evaluation, label: int) -> str:
    return evaluation.bank.source.classes[label] if label >= 0 else ""


def _thumbnails(split: Split, facts: Facts) -> list[str]:
    crops = facts.config.data.crops
    images = torch.cat([batch.images for batch in split.batches()])
    return [png(levels(image, mean=crops.mean, std=crops.std)) for image in images]


def _looked_at(evaluation: Evaluation) -> Split:
    """The held-out images, or training images where none are held out."""
    return evaluation.queries or evaluation.bank


def _spread(split: Split, count: int) -> Split:
    """At most `count` of the split's samples, spread evenly over it."""
    count = min(count, len(split.samples))
    return replace(split, samples=split.samples[np.arange(count) * len(split.samples) // count])
