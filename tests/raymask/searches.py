"""results.json of a search over schedules and strategies, for the tests of what shows one."""

import json
from pathlib import Path
from typing import Any

import numpy as np

METRIC = "eval/knn20_top1"


def trial(number: int, rng: np.random.Generator) -> dict[str, Any]:
    """One trial: a schedule of some shape, a strategy of which some have a guidance, and what came of it."""
    start, end = rng.uniform(0.1, 0.9, 2)
    shape = ("linear", "cosine", "constant")[number % 3]
    ratio = (
        {"kind": shape, "value": start}
        if shape == "constant"
        else {"kind": shape, "start": start, "end": end}
    )
    params = {"ratio_shape": shape, "ratio_start": start} | (
        {} if shape == "constant" else {"ratio_end": end}
    )
    values: dict[str, Any] = {"mask.ratio": ratio, "mask.strategy": {"kind": "random"}}
    if number % 2:
        guidance = rng.uniform(0.2, 1)
        params["guidance"] = guidance
        values["mask.strategy"] = {"kind": "attention", "guidance": guidance}
    params["lr"] = 10 ** rng.uniform(-5, -2)
    best = 60 - 40 * abs(start - 0.5) + rng.normal(0, 2)
    curve = [[1000 * (n + 1), best * (1 - 0.5 ** (n + 1))] for n in range(4)]
    seconds = 20 + 60 * (1 - start) + rng.uniform(0, 10)
    measured = {
        METRIC: curve[-1][1],
        "eval/lidar": best / 3 + rng.normal(),
        "eval/effective_rank": rng.uniform(5, 9),
    }
    return {
        "id": f"t{number:03d}",
        "values": values,
        "params": params,
        "state": "done",
        "metrics": measured,
        "costs": {},
        "curve": curve,
        "seconds": seconds,
        "images": 4000,
        "folder": f"trials/t{number:03d}",
        "history": [],
        "error": None,
    }


def write_search(
    folder: Path, *, trials: int = 12, failed: bool = True, against: str | None = "seconds"
) -> Path:
    """A folder with results.json; one trial failed at once, if so asked."""
    rng = np.random.default_rng(0)
    found = [trial(number, rng) for number in range(trials)]
    if failed:
        found[3] |= {"state": "failed", "metrics": {}, "curve": [], "error": "ValueError: <no> such thing"}
    done = [one for one in found if one["state"] == "done"]
    best = max(done, key=lambda one: one["metrics"][METRIC], default=None)
    objectives = [{"name": METRIC, "mode": "max"}] + ([{"name": against, "mode": "min"}] if against else [])
    tree = {
        "space": "strategy",
        "question": "Which patches & when?",
        "preset": "dino-laptop",
        "metric": METRIC,
        "mode": "max",
        "objectives": objectives,
        "trials": found,
        "best": best["id"] if best else None,
        "front": [],
        "command": f"raymask train dino-laptop mask.ratio.start=0.5 # {best['id']}" if best else None,
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results.json").write_text(json.dumps(tree))
    return folder
