"""Into how many disjoint views should an image be taken apart, and how much should each hide?

More views cost more: their number is weighed against multiply-accumulates.
"""

PRESETS = ("dmjd-vit-laptop",)
AGAINST = "flops"


def suggest(trial):
    """So many views, each hiding a ratio at which they reach what they are asked to predict together."""
    views = trial.suggest_int("views", 1, 4)
    ratio = trial.suggest_float("ratio", 0.3, 0.85)
    reach = trial.suggest_float("reach", 0.0, 1.0)  # between what one view hides and what all of them can
    rate = ratio + reach * (min(1.0, views * ratio) - ratio)
    return {
        "mask.strategy.views": views,
        "mask.strategy.prediction_rate": rate,
        "mask.ratio": ratio,
    }
