"""Frozen features of a backbone, in the order of the samples."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, layer_norm

from pipelines.evaluation import EvaluationBatch
from raymask.backbone import VisionBackbone
from raymask.classifier import Classifier, places
from raymask.device import autocast
from raymask.evaluate.health import attention_entropy
from raymask.evaluate.settings import LinearRecipe

# b: images of a forward   n: images   m: images, or none   k: some of them   d: backbone.dim
# e: features of the linear probe   h, w: pixels

BASE_WIDTH = 768  # from this width on, the official linear protocol takes the last block and the mean patch


@dataclass(frozen=True)
class Features:
    """What the evaluations start from, float32 on the backbone's device.

    cls: [CLS] after the final norm, for k-NN
    linear: for the linear probe. DINO's: the [CLS] of the last four blocks, each after the final norm (widths
        below 768), or the last [CLS] beside the mean patch token (from 768 on). MAE's: the mean of the last
        block's patches, each image's then normalised
    labels: -1 where unknown
    samples: which images these are, on the host; unreadable ones are not among them
    attention: entropy in nats of what [CLS] attends to among the patches, by head of the last block; None
        where it was not asked for
    places: of each label in the order of the method's own classifier, the likeliest class at 0; None where it
        was not asked
    """

    cls: Float[Tensor, "n d"]
    linear: Float[Tensor, "m e"]
    labels: Int[Tensor, " n"]
    samples: Int[Tensor, " n"]
    attention: Float[Tensor, "n heads"] | None = None
    places: Int[Tensor, " n"] | None = None

    def rows(self, places: Int[Tensor, " k"]) -> "Features":
        """The images at these places, in their order."""
        there = places.to(self.cls.device)
        attention = None if self.attention is None else self.attention[there]
        answered = None if self.places is None else self.places[there]
        linear, samples = self.linear[there], self.samples[places]
        return Features(self.cls[there], linear, self.labels[there], samples, attention, answered)


@torch.no_grad()
def extract(
    backbone: VisionBackbone,
    batches: Iterable[EvaluationBatch],
    *,
    dtype: torch.dtype | None = None,
    attention: bool = False,
    recipe: LinearRecipe = "dino",
    classifier: Classifier | None = None,
) -> Features:
    """Features of all images, under autocast to `dtype` (None: as the parameters are).

    attention: also what the entropy of attention needs; ConvViT has none and refuses
    classifier: also ask this one, which stands on the backbone, and has each label's class
    """
    device = next(backbone.parameters()).device
    was_training = backbone.training
    backbone.eval()
    parts, labels, samples, answers = [], [], [], []
    try:
        with autocast(device, dtype):
            for batch in batches:
                images = batch.images.to(device, non_blocking=True)
                *found, tokens = _forward(backbone, images, attention=attention, recipe=recipe)
                parts.append(found)
                if classifier is not None:
                    answers.append(_places(classifier, tokens, batch.labels.to(device)))
                labels.append(batch.labels)
                samples.append(batch.samples)
    finally:
        backbone.train(was_training)
    cls, linear, rows = zip(*parts)
    whole = torch.cat(rows) if attention else None
    return Features(
        torch.cat(cls),
        torch.cat(linear),
        torch.cat(labels).to(device),
        torch.cat(samples),
        whole,
        torch.cat(answers) if answers else None,
    )


def _places(
    classifier: Classifier, tokens: Float[Tensor, "b t d"], labels: Int[Tensor, " b"]
) -> Int[Tensor, " b"]:
    """In full precision: of many classes, rounded logits would be equal. Blanks, of no class, ask for one."""
    with torch.autocast(tokens.device.type, enabled=False):
        logits = classifier.answer(tokens.to(classifier.cls.weight.dtype))
    return places(logits, labels.clamp_min(0))


def _forward(
    backbone: VisionBackbone, images: Float[Tensor, "b 3 h w"], *, attention: bool, recipe: LinearRecipe
) -> tuple[Tensor, Tensor, Tensor | None, Tensor]:
    """[CLS], the features of the linear probe, the entropy of attention where it is asked for, the tokens."""
    pooled = recipe == "mae"
    tokens, extras = backbone(
        images,
        last=min(4, backbone.depth),
        patches=pooled or backbone.dim >= BASE_WIDTH,
        attention=attention,
        blocks=(backbone.depth - 1,) if pooled else (),
    )
    entropy = attention_entropy(extras["attention_heads"]) if attention else None
    cls = extras["cls"][-1].float()  # ConvViT has no class token, but a mean one
    if pooled:
        mean = extras["blocks"][0][:, backbone.prefix :].float().mean(1)
        return cls, layer_norm(mean, mean.shape[1:], eps=1e-6), entropy, tokens
    if backbone.dim < BASE_WIDTH:
        return cls, torch.cat([block.float() for block in extras["cls"]], dim=1), entropy, tokens
    return cls, torch.cat([cls, tokens[:, backbone.prefix :].float().mean(1)], dim=1), entropy, tokens


def pixels(batches: Iterable[EvaluationBatch], *, side: int = 32) -> Features:
    """Normalised pixels as features: images averaged down to at most `side` x `side`, flattened."""
    parts, labels, samples = [], [], []
    for batch in batches:
        height, width = (min(side, pixels) for pixels in batch.images.shape[-2:])
        parts.append(adaptive_avg_pool2d(batch.images, (height, width)).flatten(1))
        labels.append(batch.labels)
        samples.append(batch.samples)
    features = torch.cat(parts)
    return Features(features, features, torch.cat(labels), torch.cat(samples))
