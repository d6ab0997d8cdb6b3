"""Whether a run is learning, in words: what the monitors of collapse say."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Verdict:
    """`state` colours the sentence."""

    state: Literal["good", "watch", "bad"]
    text: str


def judge(training: Sequence[dict], evaluations: Sequence[dict], *, uniform: float | None) -> Verdict:
    """What the last tenth of the training lines and the evaluations tell; the gravest finding comes first.

    uniform: ln K, what a student without any idea pays; None for methods without prototypes
    """
    if not training:
        return Verdict("watch", "Nothing was logged yet.")
    tail = training[-max(1, len(training) // 10) :]
    collapse = (uniform and _collapsed_answers(tail, uniform)) or _collapsed_features(evaluations)
    if collapse:
        return Verdict("bad", collapse)
    doubt = (uniform and _guessing(tail, uniform)) or _worse_than_at_the_start(evaluations)
    if doubt:
        return Verdict("watch", doubt)
    return Verdict("good", f"No sign of collapse.{_entropy(tail, uniform)}{_moved(evaluations)}")


def _collapsed_answers(tail: Sequence[dict], uniform: float) -> str | None:
    entropy, spread = _mean(tail, "teacher_entropy"), _mean(tail, "teacher_spread")
    if entropy is not None and entropy > 0.98 * uniform:
        return (
            f"Collapsed to uniform: the teacher's answers are noise (entropy {entropy:.2f} of ln K = "
            f"{uniform:.2f}). Lower method.teacher_temperature or optim.base_lr."
        )
    if spread is not None and spread < 0.05 * uniform:
        return (
            f"Collapsed to one answer: the teacher says the same of all images (entropy of its mean answer "
            f"{spread:.2f} of ln K = {uniform:.2f}). Lower optim.base_lr or raise optim.freeze_last_layer."
        )
    return None


def _collapsed_features(evaluations: Sequence[dict]) -> str | None:
    rank = evaluations[-1].get("eval/effective_rank") if evaluations else None
    return f"Features collapsed: they use {rank:.1f} directions." if rank is not None and rank < 2 else None


def _guessing(tail: Sequence[dict], uniform: float) -> str | None:
    gap = _mean(tail, "below_uniform")
    if gap is None or gap >= 0.02 * uniform:
        return None
    return (
        f"Not learning yet: the loss sits at ln K = {uniform:.2f}, what guessing costs. If it stays there, "
        "lower method.teacher_temperature, take a smaller method.head.out_dim or a larger train.global_batch."
    )


def _worse_than_at_the_start(evaluations: Sequence[dict]) -> str | None:
    name = _shared_knn(evaluations)
    if name is None or evaluations[-1][name] >= evaluations[0][name]:
        return None
    return f"Not useful yet, though not collapsed.{_moved(evaluations)} Train longer, or with milder crops."


def _entropy(tail: Sequence[dict], uniform: float | None) -> str:
    entropy = _mean(tail, "teacher_entropy")
    if entropy is None or not uniform:
        return ""
    return f" Teacher entropy is {entropy:.2f} of at most ln K = {uniform:.2f}."


def _moved(evaluations: Sequence[dict]) -> str:
    """How the k-NN accuracy moved over the run."""
    name = _shared_knn(evaluations)
    if name is None:
        return ""
    first, last = evaluations[0], evaluations[-1]
    return (
        f" k-NN (k = {name.removeprefix('eval/knn').removesuffix('_top1')}) went from {first[name]:.1f} % at "
        f"{first['images']:,} images to {last[name]:.1f} % at {last['images']:,}."
    )


def _shared_knn(evaluations: Sequence[dict]) -> str | None:
    """A k-NN accuracy that the first and the last of several evaluations have, k = 20 if possible."""
    if len(evaluations) < 2:
        return None
    names = [
        n for n in evaluations[-1] if n.startswith("eval/knn") and n.endswith("top1") and n in evaluations[0]
    ]
    return "eval/knn20_top1" if "eval/knn20_top1" in names else next(iter(names), None)


def _mean(lines: Sequence[dict], name: str) -> float | None:
    values = [line[name] for line in lines if line.get(name) is not None]  # null: it was not finite
    return sum(values) / len(values) if values else None
