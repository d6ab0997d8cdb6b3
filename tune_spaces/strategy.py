"""Which patches should be hidden: any, blocks of them, or those that the teacher attends to?

What is drawn after the strategy depends on it: only attention has a guidance, only hints have a pool.
"""

PRESETS = ("attmask-high-laptop", "dino-attmask-high-laptop", "ibot-random-laptop", "dino-random-mask-laptop")
FIXED = {"mask.spread": 0.0}  # where a preset draws its ratio: the ratio itself is asked for


def suggest(trial):
    """A strategy with what belongs to it, and a ratio."""
    kind = trial.suggest_categorical("strategy", ["random", "block", "high", "hint", "low"])
    return {"mask.strategy": _strategy(trial, kind), "mask.ratio": trial.suggest_float("ratio", 0.15, 0.6)}


def _strategy(trial, kind):
    if kind in ("random", "block"):
        return {"kind": kind}
    chosen = {
        "kind": "attention",
        "prefer": "low" if kind == "low" else "high",
        "guidance": trial.suggest_float("guidance", 0.2, 1.0),
    }
    # Also 0 where there are no hints: the preset may have some.
    chosen["reveal_pool"] = trial.suggest_float("pool", 0.05, 0.3) if kind == "hint" else 0.0
    return chosen
