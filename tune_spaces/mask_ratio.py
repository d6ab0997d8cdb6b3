"""What share of the patches should be hidden?"""

PRESETS = ("dino-random-mask-laptop", "attmask-high-laptop", "ibot-random-laptop", "mae-laptop")
MUTATIONS = {"mask.ratio": (0.1, 0.9)}
FIXED = {"mask.spread": 0.0}  # where a preset draws its ratio: the ratio itself is asked for


def suggest(trial):
    """A constant ratio, in any method that masks its student."""
    return {"mask.ratio": trial.suggest_float("ratio", 0.1, 0.9)}
