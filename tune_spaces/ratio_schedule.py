"""Should the mask ratio change during training, and how?

Its shape is drawn first, then its values and the places of its knots. pbt and pb2 find a staircase instead.
"""

from tune_spaces._knots import schedule

PRESETS = ("dino-random-mask-laptop", "attmask-high-laptop", "ibot-random-laptop", "mae-laptop")
FIXED = {"mask.spread": 0.0}  # where a preset draws its ratio: the ratio itself is asked for
MUTATIONS = {"mask.ratio": (0.1, 0.9)}


def suggest(trial):
    """A schedule of the ratio."""
    return {"mask.ratio": schedule(trial, "ratio", 0.1, 0.9)}
