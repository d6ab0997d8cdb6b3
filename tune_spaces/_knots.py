"""A schedule as something to be drawn: its shape first, then the numbers that the shape has."""

SHAPES = ("constant", "linear", "cosine", "two_steps", "two_knots")


def schedule(trial, name, low, high, shapes=SHAPES):
    """The config of a schedule between `low` and `high`; `name` begins the names of its numbers."""
    shape = trial.suggest_categorical(f"{name}_shape", shapes)
    start = trial.suggest_float(f"{name}_start", low, high)
    if shape == "constant":
        return {"kind": "constant", "value": start}
    end = trial.suggest_float(f"{name}_end", low, high)
    if shape in ("linear", "cosine"):
        return {"kind": shape, "start": start, "end": end}
    if shape == "two_steps":
        at = trial.suggest_float(f"{name}_at", 0.2, 0.8)
        return {"kind": "steps", "values": [start, end], "at": [at]}
    first = trial.suggest_float(f"{name}_first", 0.1, 0.45)
    second = trial.suggest_float(f"{name}_second", 0.55, 0.9)
    middle = trial.suggest_float(f"{name}_middle", low, high)
    return {"kind": "piecewise", "points": [[0.0, start], [first, middle], [second, end]]}
