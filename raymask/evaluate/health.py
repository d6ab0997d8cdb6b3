"""Whether features are alive, without labels: their spread, how many directions they use, where they look."""

import torch
from jaxtyping import Float
from torch import Tensor

# n: images   q: views of an image   d: feature size   p: patches

LIDAR_RIDGE = 1e-4  # added to the within-image covariance, in the square of the features' own unit


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


def lidar(views: Float[Tensor, "n q d"]) -> float:
    """LiDAR: the effective rank of the LDA matrix whose classes are the images, in [1, min(n - 1, d)].

    The matrix is W^-1/2 B W^-1/2, with B the covariance of the images' means (divided by n) and W the mean
    covariance of an image's views (divided by n * q) plus LIDAR_RIDGE on its diagonal (arXiv:2312.04000). Its
    eigenvalues are taken as the squared singular values of the centred means times W^-1/2. Ours: features are
    the backbone's, not a head's, and there is no epsilon in the logarithm, since 0 log 0 is 0 here.
    """
    wide = views.double()
    means = wide.mean(1)
    apart = (wide - means[:, None]).flatten(0, 1)
    within = (
        apart.T @ apart / len(apart) + LIDAR_RIDGE * torch.eye(wide.shape[2], device=wide.device).double()
    )
    values, axes = torch.linalg.eigh(within)
    between = (means - means.mean(0)) @ (axes / values.sqrt())
    spread = torch.linalg.svdvals(between).square()
    share = spread / spread.sum().clamp_min(1e-12)
    return float(torch.special.entr(share).sum().exp())


def attention_entropy(attention: Float[Tensor, "n heads p"]) -> Float[Tensor, "n heads"]:
    """Entropy in nats, 0 to ln p, of what a token attends to among the patches (weights scaled to sum 1)."""
    share = attention / attention.sum(2, keepdim=True).clamp_min(1e-12)
    return torch.special.entr(share).sum(2)
