"""How fast should it learn, for how long warm up, and how strongly decay?"""

PRESETS = (
    "dino-laptop",
    "dino-random-mask-laptop",
    "attmask-high-laptop",
    "mae-laptop",
    "dmjd-vit-laptop",
    "maskedkd-50-laptop",
)


def suggest(trial):
    """Learning rate, warm-up, the weight decay's end and the batch."""
    return {
        "optim.base_lr": trial.suggest_float("base_lr", 1e-4, 1e-2, log=True),
        "optim.warmup": trial.suggest_float("warmup", 0.0, 0.3),
        "optim.weight_decay": {
            "kind": "cosine",
            "start": 0.04,
            "end": trial.suggest_float("weight_decay", 0.04, 0.5, log=True),
        },
        "train.global_batch": trial.suggest_categorical("global_batch", [32, 64, 128]),
    }
