"""Features of a split, extracted by all ranks together: each takes whole batches, and as many forwards.

A forward may be a collective (FSDP2 gathers weights in it), so a rank with fewer batches, or one that cannot
read on, makes the others with a blank image whose features are dropped. What one rank meets ends all of them,
afterwards.
"""

from collections.abc import Callable, Iterator

import torch
import torch.distributed as dist
from torch import Tensor

from pipelines.bad import BadSamples
from pipelines.evaluation import EvaluationBatch
from raymask.backbone import VisionBackbone
from raymask.bad import agree
from raymask.classifier import Classifier
from raymask.evaluate.features import Features, extract
from raymask.evaluate.settings import LinearRecipe
from raymask.evaluate.splits import Split
from raymask.world import World, sum_across, together

Cut = Callable[[Split, BadSamples], Iterator[EvaluationBatch]]

_OTHERWISE = "another process could not evaluate, and says why"
_BLANK = -1  # the number of no sample


def centre(split: Split, bad: BadSamples) -> Iterator[EvaluationBatch]:
    """The centre crops of a split."""
    return split.batches(bad)


def extract_share(
    backbone: VisionBackbone,
    split: Split,
    *,
    world: World,
    dtype: torch.dtype | None,
    cut: Cut = centre,
    views: int = 1,
    attention: bool = False,
    recipe: LinearRecipe = "dino",
    classifier: Classifier | None = None,
) -> Features:
    """This rank's share of the features of a split. A collective.

    recipe: whose features the linear probe wants
    classifier: who is asked for the place of each label
    cut: what to make of the images, `views` batches of each batch
    Raises the same ValueError on every rank where too many images cannot be used, and one on every rank where
    one cannot go on.
    """
    device = next(backbone.parameters()).device
    share, limit = split.share(world), split.data.max_bad_fraction
    bad = BadSamples(split.source, limit=limit, rank=world.rank, world=world.size)
    rounds = views * split.rounds(world) if world.size > 1 else 1
    batches = _Paced(cut(share, bad), rounds=rounds, size=split.size)
    features = extract(
        backbone, batches, dtype=dtype, attention=attention, recipe=recipe, classifier=classifier
    )
    if world.size == 1:
        if batches.problem is not None:
            raise batches.problem
        return _without_blanks(features)
    with together(device=device, otherwise=_OTHERWISE):
        if batches.problem is not None:
            raise batches.problem
    agree(bad, world=world, device=device)
    return _without_blanks(features)


class _Paced:
    """Batches, then blank ones until there were `rounds`; the error that ended them early is kept."""

    def __init__(self, batches: Iterator[EvaluationBatch], *, rounds: int, size: tuple[int, int]) -> None:
        self.batches, self.rounds, self.size = batches, rounds, size
        self.problem: ValueError | OSError | None = None

    def __iter__(self) -> Iterator[EvaluationBatch]:
        made = 0
        try:
            for batch in self.batches:
                made += 1
                yield batch
        except (ValueError, OSError) as error:
            self.problem = error
        none = torch.tensor([_BLANK])
        for _ in range(made, self.rounds):
            yield EvaluationBatch(torch.zeros(1, 3, *self.size), none, none)


def _without_blanks(features: Features) -> Features:
    real = (features.samples != _BLANK).nonzero()[:, 0]
    return features if len(real) == len(features.samples) else features.rows(real)


def gather(features: Features, *, world: World, linear: bool = False) -> Features:
    """The features of all ranks, in the order of the samples (views of one: in theirs). A collective.

    linear: also those of the linear probe, to the first rank; the others, and without it all, get none
    """
    if world.size == 1:
        return _in_order(features)
    device = features.cls.device
    mine = torch.zeros(world.size, dtype=torch.int64, device=device)
    mine[world.rank] = len(features.samples)
    counts = sum_across(mine).tolist()
    samples = _everywhere(features.samples.to(device), counts)
    order = samples.argsort(stable=True)
    wide = _on_the_first(features.linear, counts, world) if linear else features.linear[:0]
    attention = features.attention
    return Features(
        cls=_everywhere(features.cls, counts)[order],
        linear=wide[order] if len(wide) else wide,
        labels=_everywhere(features.labels, counts)[order],
        samples=samples[order].cpu(),
        attention=None if attention is None else _everywhere(attention, counts)[order],
    )


def _in_order(features: Features) -> Features:
    """By sample. The views of random crops come batch by batch; all else is in order, and not copied."""
    samples = features.samples
    ordered = bool((samples[1:] >= samples[:-1]).all())
    return features if ordered else features.rows(samples.argsort(stable=True))


def _padded(rows: Tensor, count: int) -> Tensor:
    """`count` rows: these, then zeros. Ranks can exchange only what has one shape."""
    return torch.cat([rows, rows.new_zeros(count - len(rows), *rows.shape[1:])]).contiguous()


def _everywhere(rows: Tensor, counts: list[int]) -> Tensor:
    """The rows of all ranks, one after the other, on every one."""
    mine = _padded(rows, max(counts))
    found = [torch.empty_like(mine) for _ in counts]
    dist.all_gather(found, mine)
    return torch.cat([part[:count] for part, count in zip(found, counts)])


def _on_the_first(rows: Tensor, counts: list[int], world: World) -> Tensor:
    """The rows of all ranks on the first one, which spares the memory of the others; none there."""
    mine = _padded(rows, max(counts))
    found = [torch.empty_like(mine) for _ in counts] if world.leads else None
    dist.gather(mine, found, dst=0)
    if found is None:
        return rows[:0]
    return torch.cat([part[:count] for part, count in zip(found, counts)])
