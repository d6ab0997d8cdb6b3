"""Which of an evaluation's numbers a person follows; metrics.jsonl and the report have them all."""

from collections.abc import Mapping

from pipelines.names import printable

_OWN = "top1"  # of the classifier that a method trains
_KNN = "knn20_top1"  # as spaces and papers have it, if it was asked for
_OTHERS = ("linear_top1", "finetune_top1", "effective_rank")


def headline(measured: Mapping[str, float | None]) -> str:
    """A trained classifier, k-NN of 20 neighbours or of the first k, probe, fine-tuning, effective rank.

    measured: {"eval/NAME": value}; where it has none of these, all that it has
    """
    found = {name.removeprefix("eval/"): value for name, value in measured.items() if value is not None}
    knn = [name for name in found if name.startswith("knn") and name.endswith("_top1")]
    first = [_KNN] if _KNN in knn else knn[:1]
    followed = [name for name in (_OWN, *first, *_OTHERS) if name in found]
    return "  ".join(f"{printable(name)} {found[name]:.4g}" for name in followed or found)
