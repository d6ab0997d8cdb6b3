"""Whether features are alive, without labels: their spread, and how many directions they use."""

import torch
from jaxtyping import Float
from torch import Tensor

# n: images   d: feature size


def feature_std(features: Float[Tensor, "n d"]) -> float:
    """Mean over dimensions of the standard deviation of unit-length features, times sqrt(d).

    About 1 where features spread over the sphere, 0 where all images look the same (SimSiam,
    arXiv:2011.10566).
    """
    unit = torch.nn.functional.normalize(features.double(), dim=1)
    return float(unit.std(0, correction=0).mean() * features.shape[1] ** 0.5)


def effective_rank(features: Float[Tensor, "n d"]) -> float:
    """RankMe: exp of the entropy of the normalised singular values, in [1, min(n, d)] (arXiv:2210.02885).

    Features are taken as they are, not centred, as in the paper.
    """
    values = torch.linalg.svdvals(features.double())
    share = values / values.sum().clamp_min(1e-12)
    return float(torch.special.entr(share).sum().exp())
