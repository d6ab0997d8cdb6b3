"""How much of the frozen teacher is worth its time, and when?

Accuracy against the teacher's multiply-accumulates: the share of its patches that are kept, as a schedule.
"""

from tune_spaces._knots import schedule

PRESETS = ("maskedkd-50-laptop", "maskedkd-25-laptop")
METRIC = "eval/top1"  # of the student's own classifier: the paper's
AGAINST = "teacher_flops"
MUTATIONS = {"method.keep.ratio": (0.1, 1.0)}


def suggest(trial):
    """A schedule of the share kept, and whether the student's attention chooses."""
    return {
        "method.keep.ratio": schedule(trial, "keep", 0.1, 1.0, ("constant", "linear", "two_steps")),
        "method.keep.source": trial.suggest_categorical("source", ["student", "random"]),
    }
