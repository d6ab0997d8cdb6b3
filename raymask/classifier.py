"""Linear classifiers on a backbone's tokens, for methods that learn from labels."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from raymask.backbone import VisionBackbone

# r: rows   c: classes   t: tokens   d: width of a token


class Classifier(nn.Module):
    """Linear classifiers of [CLS] and, where the network has one, of the distillation token.

    pooled: of a network without [CLS], how many tokens stand before the patches whose mean takes its place
    """

    def __init__(self, dim: int, classes: int, *, distilled: bool, pooled: int | None = None) -> None:
        super().__init__()
        self.pooled = pooled
        self.cls = nn.Linear(dim, classes)
        self.dist = nn.Linear(dim, classes) if distilled else None
        for layer in (self.cls, self.dist):
            if layer is not None:
                nn.init.trunc_normal_(layer.weight, std=0.02)  # as in DeiT
                nn.init.zeros_(layer.bias)

    def forward(self, tokens: Float[Tensor, "r t d"]) -> tuple[Float[Tensor, "r c"], Float[Tensor, "r c"]]:
        """What learns from labels, and what learns from a teacher: the same without a second token."""
        logits = self.cls(tokens[:, 0] if self.pooled is None else tokens[:, self.pooled :].mean(1))
        return logits, logits if self.dist is None else self.dist(tokens[:, 1])

    @property
    def classes(self) -> int:
        """How many classes it tells apart."""
        return self.cls.out_features

    def answer(self, tokens: Float[Tensor, "r t d"]) -> Float[Tensor, "r c"]:
        """What it says once it is trained: of two classifiers the mean, as DeiT does and timm."""
        learned, taught = self(tokens)
        return (learned + taught) / 2


def classifier_of(network: nn.Module) -> Classifier | None:
    """What a student or teacher trains on labels, or None where its method has no classes."""
    head = getattr(network, "head", None)
    return head if isinstance(head, Classifier) else None


def classifier(backbone: VisionBackbone, classes: int, *, seed: int) -> Classifier:
    """The classifiers that fit a backbone; the weights are a function of the arguments alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        pooled = None if backbone.has_cls else backbone.prefix
        return Classifier(backbone.dim, classes, distilled=is_distilled(backbone), pooled=pooled)


def is_distilled(backbone: VisionBackbone) -> bool:
    """Whether a network has a distillation token."""
    return hasattr(backbone.vit, "dist_token")


@torch.no_grad()
def places(logits: Float[Tensor, "r c"], labels: Int[Tensor, " r"]) -> Int[Tensor, " r"]:
    """The place of each image's label among its classes, the likeliest at 0; of equals the lower goes first.

    What is not a number is nobody's best: such an image is not called right.
    """
    own = logits.gather(1, labels[:, None])
    lower = torch.arange(logits.shape[1], device=logits.device) < labels[:, None]
    return (~(logits <= own) | ((logits == own) & lower)).sum(1)


@torch.no_grad()
def share_right(logits: Float[Tensor, "r c"], labels: Int[Tensor, " r"]) -> Float[Tensor, ""]:
    """The share of images whose likeliest class is their label."""
    return (logits.argmax(-1) == labels).float().mean()


@torch.no_grad()
def monitors(logits: Float[Tensor, "r c"], labels: Int[Tensor, " r"]) -> dict[str, Tensor]:
    """How sure a teacher is, in nats on average, and how often it is right."""
    entropy = -(logits.softmax(-1) * logits.log_softmax(-1)).sum(-1).mean()
    return {"teacher_entropy": entropy, "teacher_accuracy": share_right(logits, labels)}
