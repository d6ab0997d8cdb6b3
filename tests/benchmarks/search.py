"""Does search pay? The best constant mask ratio of a grid against a searched schedule, at equal cost.

    python -m tests.benchmarks.search SHARDS OUT               searches what OUT lacks, prints the tables
    python -m tests.benchmarks.search SHARDS OUT --seeds 0 1 2 --trials 8 --images 32000
    python -m tests.benchmarks.search SHARDS OUT --table       only prints what is there

SHARDS is a folder packed by `raymask pack` with train and val. Each arm of each seed is a search of its own
with the same number of trials and of images, one trial at a time in one process, no trial stopped early. What
each found is then trained twice more with seeds that no search saw, because the best of several is lucky. A
killed benchmark goes on where it was.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import mean

METRIC = "eval/knn20_top1"
LABEL_FREE = ("effective_rank", "feature_std", "lidar", "attention_entropy")
ARMS = {  # the space, and who proposes
    "grid": ("mask_ratio", ["search=grid"]),
    "searched": ("ratio_schedule", ["search=optuna"]),
}
PRESET = "mae-laptop"
SMALL = [
    "backbone.name=vit_tiny_patch16_224",
    "backbone.image_size=48",
    "backbone.patch_size=8",
    "backbone.dim=96",
    "backbone.depth=3",
    "backbone.heads=3",
    "data.crops.global_crops.size=48",
    "data.threads=1",
    "method.decoder.dim=64",
    "method.decoder.depth=1",
    "method.decoder.heads=2",
    "optim.base_lr=2e-3",
    "evaluate.max_images=4000",
    "evaluate.label_free=true",
    "evaluate.lidar_images=200",
    "evaluate.lidar_views=5",
]
AGAIN = (1000, 2000)  # added to the seed of a search for the runs that it did not see


def main() -> None:
    """Searches what is missing, and prints what there is."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("shards", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--trials", type=int, default=8)
    parser.add_argument("--images", type=int, default=32_000, help="of each trial")
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS), help="to run; all are shown")
    parser.add_argument("--table", action="store_true", help="run nothing")
    asked = parser.parse_args()
    if not asked.table:
        asked.out.mkdir(parents=True, exist_ok=True)
        _run(asked)
    print(*_table(asked), sep="\n")


def _run(asked: argparse.Namespace) -> None:
    # Compiled code is cached on the disk: the first trial shall not pay for it.
    _train(PRESET, asked.out / "warm", [*SMALL, "train.steps=4", "evaluate.max_images=64"], asked)
    for seed in asked.seeds:
        for arm in asked.arms:
            _search(arm, seed, asked)
        for arm in asked.arms:
            for more in AGAIN:
                found = asked.out / f"{arm}-{seed}" / "best.yaml"
                _train(str(found), asked.out / f"{arm}-{seed}-{more}", [f"run.seed={seed + more}"], asked)


def _search(arm: str, seed: int, asked: argparse.Namespace) -> None:
    folder = asked.out / f"{arm}-{seed}"
    if (folder / "best.yaml").exists():
        return
    if (folder / "search.yaml").exists():
        _raymask("resume", str(folder))
        return
    space, search = ARMS[arm]
    lengths = [f"budget={asked.trials * asked.images}", f"trials={asked.trials}", "checks=1"]
    named = [
        f"name={arm}-{seed}",
        f"root={asked.out}",
        f"seed={seed}",
        f"run.seed={seed}",
        f"metric={METRIC}",
    ]
    given = [f"preset={PRESET}", f"data={asked.shards}", "scheduler=none", "at_once=1"]
    _raymask("tune", space, *search, *lengths, *named, *given, *SMALL)


def _train(what: str, folder: Path, changes: Sequence[str], asked: argparse.Namespace) -> None:
    if _last(folder) is not None:
        return
    if (folder / "checkpoints").exists():
        _raymask("resume", str(folder))
        return
    places = [f"run.root={folder.parent}", f"run.name={folder.name}", f"data={asked.shards}"]
    _raymask("train", what, *places, *changes)


def _raymask(*words: str) -> None:
    print("raymask", *words, flush=True)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-m", "raymask", *words], env=environment, check=True)


def _table(asked: argparse.Namespace) -> Iterator[str]:
    """Markdown: an arm a row, then what correlates with k-NN."""
    seeds = [seed for seed in asked.seeds if all((_found(arm, seed, asked)) for arm in ARMS)]
    yield f"| seed | arm | trials | CPU s | best of the search | found | {METRIC} with new seeds |"
    yield "|" + "---|" * 7
    for seed in seeds:
        for arm in ARMS:
            yield _row(arm, seed, asked)
    yield ""
    yield from _correlations([_found(arm, seed, asked) for seed in seeds for arm in ARMS])


def _found(arm: str, seed: int, asked: argparse.Namespace) -> dict:
    path = asked.out / f"{arm}-{seed}" / "results.json"
    tree = json.loads(path.read_text()) if (path.parent / "best.yaml").exists() else {}
    return tree if tree.get("best") else {}


def _row(arm: str, seed: int, asked: argparse.Namespace) -> str:
    from raymask.short import short

    tree = _found(arm, seed, asked)
    ended = [trial for trial in tree["trials"] if trial["state"] == "done"]
    best = next(trial for trial in ended if trial["id"] == tree["best"])
    again = [_last(asked.out / f"{arm}-{seed}-{more}") for more in AGAIN]
    fresh = [line[METRIC] for line in again if line is not None]
    cells = [
        str(seed),
        arm,
        str(len(ended)),
        f"{sum(trial['seconds'] for trial in ended):.0f}",
        f"{best['metrics'][METRIC]:.1f}",
        short(best["values"]["mask.ratio"]),
        f"{mean(fresh):.1f} ({', '.join(f'{value:.1f}' for value in fresh)})" if fresh else "-",
    ]
    return f"| {' | '.join(cells)} |"


def _correlations(found: Sequence[dict]) -> Iterator[str]:
    """Spearman's rank correlation of each label-free metric with k-NN, over all trials and by search."""
    searches = [[trial["metrics"] for trial in tree["trials"] if trial["state"] == "done"] for tree in found]
    every = [metrics for search in searches for metrics in search]
    if len(every) < 3:
        return
    yield f"| metric without labels | Spearman, all {len(every)} trials | mean within a search (extremes) |"
    yield "|" + "---|" * 3
    for name in LABEL_FREE:
        key = f"eval/{name}"
        each = [spearman([m[key] for m in search], [m[METRIC] for m in search]) for search in searches]
        whole = spearman([m[key] for m in every], [m[METRIC] for m in every])
        yield f"| {key} | {whole:.2f} | {mean(each):.2f} ({min(each):.2f} to {max(each):.2f}) |"


def spearman(one: Sequence[float], other: Sequence[float]) -> float:
    """The correlation of the ranks; equal values share the mean of their ranks.

    >>> spearman([1.0, 2.0, 3.0], [10.0, 20.0, 15.0])
    0.5
    """
    first, second = _ranks(one), _ranks(other)
    middle = (len(first) + 1) / 2
    products = sum((a - middle) * (b - middle) for a, b in zip(first, second))
    squares = [sum((a - middle) ** 2 for a in ranks) for ranks in (first, second)]
    return products / max(1e-12, (squares[0] * squares[1]) ** 0.5)


def _ranks(values: Sequence[float]) -> list[float]:
    return [
        sum(other < value for other in values) + (sum(other == value for other in values) + 1) / 2
        for value in values
    ]


def _last(folder: Path) -> dict | None:
    """The final evaluation of a run that came to its end."""
    path = folder / "metrics.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    ends = [line for line in lines if METRIC in line]
    return ends[-1] if ends and (folder / "report.html").exists() else None


if __name__ == "__main__":
    main()
