"""Should the teacher's attention decide more as it learns, or less?

An untrained teacher attends to nothing of note: guidance may have to wait for it.
"""

from tune_spaces._knots import schedule

PRESETS = ("attmask-high-laptop", "dino-attmask-high-laptop")
MUTATIONS = {"mask.strategy.guidance": (0.0, 1.0)}


def suggest(trial):
    """A schedule of the guidance."""
    return {"mask.strategy.guidance": schedule(trial, "guidance", 0.0, 1.0)}
