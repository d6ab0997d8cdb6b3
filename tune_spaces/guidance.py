"""How far should the teacher's attention decide what is hidden: not at all (0), alone (1), or in between?"""

PRESETS = ("attmask-high-laptop", "dino-attmask-high-laptop")
MUTATIONS = {"mask.strategy.guidance": (0.0, 1.0)}


def suggest(trial):
    """A constant guidance, and which end of the attention is hidden."""
    return {
        "mask.strategy.prefer": trial.suggest_categorical("prefer", ["high", "low"]),
        "mask.strategy.guidance": trial.suggest_float("guidance", 0.0, 1.0),
    }
