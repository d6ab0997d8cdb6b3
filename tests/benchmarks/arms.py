"""What a paper claims, at our size: the arms of one study, trained on the same images and set side by side.

    python -m tests.benchmarks.arms STUDY SHARDS RUNS          trains what RUNS lacks, prints the table
    python -m tests.benchmarks.arms STUDY SHARDS RUNS --seeds 0 1 --at-once 2
    python -m tests.benchmarks.arms STUDY SHARDS RUNS --set mask.ratio=0.5

SHARDS is a folder packed by `raymask pack` with train and val. An arm is an ordinary run of one thread in a
process of its own; a killed one goes on where it was. A study is one of those in STUDIES.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import mean

SMALL = [
    "backbone.name=vit_tiny_patch16_224",
    "backbone.dim=128",
    "backbone.depth=4",
    "backbone.heads=4",
    "backbone.drop_path=0.0",
    "train.checkpoint_images=20000",
    "evaluate.linear=true",
    "data.threads=1",
]
DINO = [
    *SMALL,
    "method.head.out_dim=2048",
    "optim.base_lr=2e-3",
    "train.epochs=12",
    "evaluate.every_images=38000",
]
STUDENT = [*SMALL, "backbone.dim=96", "train.epochs=15", "evaluate.every_images=71000", "optim.base_lr=1e-3"]
LARGER = ["backbone.dim=192", "backbone.depth=6"]
TAUGHT = [*STUDENT, "train.epochs=10", "method.teacher.weights={runs}/teacher-{seed}"]
MAE = [*SMALL, "method.decoder.dim=96", "method.decoder.depth=1"]
MAE += ["evaluate.linear_recipe=dino", "evaluate.linear_lr=0.1"]
MAE += ["evaluate.every_images=100000"]
# name of the arm: preset and settings, in the order in which they are trained
STUDIES: dict[str, dict[str, list[str]]] = {
    "masks": {
        "none": ["dino-laptop", *DINO],
        "globals": ["dino-random-mask-laptop", *DINO],
        "student": ["dino-random-mask-student-laptop", *DINO],
    },
    "attmask": {
        "high": ["attmask-high-laptop", *DINO, "train.global_batch=64"],
        "random": ["attmask-high-laptop", *DINO, "train.global_batch=64", "mask.strategy={kind: random}"],
        "low": ["attmask-low-laptop", *DINO, "train.global_batch=64"],
    },
    "maskedkd": {
        "teacher": ["kd-soft-laptop", *STUDENT, "method.objective.kind=none", *LARGER],
        "labels": ["kd-soft-laptop", *STUDENT, "train.epochs=10", "method.objective.kind=none"],
        "keep100": ["kd-soft-laptop", *TAUGHT],
        "keep50": ["maskedkd-50-laptop", *TAUGHT],
        "keep25": ["maskedkd-50-laptop", *TAUGHT, "method.keep.ratio=0.25"],
        "random50": ["maskedkd-50-laptop", *TAUGHT, "method.keep.source=random"],
        "random25": ["maskedkd-50-laptop", *TAUGHT, "method.keep.ratio=0.25", "method.keep.source=random"],
    },
    "dmjd": {
        "mae": ["mae-laptop", *MAE, "train.epochs=40"],
        "dmjd": ["dmjd-vit-laptop", *MAE, "train.epochs=16"],
    },
}
TEACHER = "teacher"  # the arm that others of its study need, so that they wait for it
COLUMNS = ("knn10_top1", "knn20_top1", "knn100_top1", "knn200_top1", "linear_top1")


def main() -> None:
    """Trains what is missing, and prints one row an arm."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("study", choices=STUDIES)
    parser.add_argument("shards")
    parser.add_argument("runs", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--at-once", type=int, default=2, help="arms that train side by side")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="settings of every arm")
    asked = parser.parse_args()
    asked.runs.mkdir(parents=True, exist_ok=True)
    waiting = [
        (f"{arm}-{seed}", [*settings, f"run.seed={seed}", *asked.set])
        for seed in asked.seeds
        for arm, settings in STUDIES[asked.study].items()
        if _ended(asked.runs / f"{arm}-{seed}") is None
    ]
    _train(waiting, asked)
    print(*_table(asked), sep="\n")


def _train(waiting: list[tuple[str, list[str]]], asked: argparse.Namespace) -> None:
    """Runs the arms in order, so many at once, and notes the CPU seconds that each took."""
    running: dict[int, tuple[str, float]] = {}
    while waiting or running:
        alone = any(name.startswith(TEACHER) for name, _ in running.values())
        if waiting and len(running) < asked.at_once and not alone:
            name, settings = waiting.pop(0)
            running[_start(name, settings, asked)] = (name, time.time())
            continue
        process, status, used = os.wait4(-1, 0)
        name, started = running.pop(process)
        if status:
            raise SystemExit(f"{name} failed; {asked.runs / name / 'train.log'} says why")
        cost = {"cpu_s": used.ru_utime + used.ru_stime, "wall_s": time.time() - started}
        with (asked.runs / f"{name}.cost.jsonl").open("a") as log:
            log.write(json.dumps(cost) + "\n")


def _start(name: str, settings: list[str], asked: argparse.Namespace) -> int:
    """The number of the process that trains or continues an arm."""
    folder = asked.runs / name
    command = [sys.executable, "-m", "raymask"]
    if (folder / "checkpoints").exists():
        command += ["resume", str(folder)]
    else:
        seed = name.rsplit("-", 1)[1]
        changes = [change.replace("{runs}", str(asked.runs)).replace("{seed}", seed) for change in settings]
        command += ["train", changes[0], f"data={asked.shards}", f"run.root={asked.runs}", f"run.name={name}"]
        command += changes[1:]
    with (asked.runs / f"{name}.out").open("a") as out:
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        return subprocess.Popen(command, env=environment, stdout=out, stderr=out).pid


def _table(asked: argparse.Namespace) -> Iterator[str]:
    """Markdown: the last evaluation of each arm, its mean over the seeds with the extremes, and its cost."""
    yield f"| arm | images seen | CPU min | {' | '.join(COLUMNS)} |"
    yield "|" + "---|" * (len(COLUMNS) + 3)
    for arm in STUDIES[asked.study]:
        folders = [asked.runs / f"{arm}-{seed}" for seed in asked.seeds]
        ends = [end for folder in folders if (end := _ended(folder)) is not None]
        minutes = mean(
            sum(cost["cpu_s"] for cost in _lines(f.with_suffix(".cost.jsonl"))) / 60 for f in folders
        )
        cells = [_spread([end[f"eval/{column}"] for end in ends]) for column in COLUMNS]
        yield f"| {arm} | {ends[0]['images']:,} | {minutes:.1f} | {' | '.join(cells)} |"


def _spread(values: list[float]) -> str:
    if len(values) == 1:
        return f"{values[0]:.1f}"
    return f"{mean(values):.1f} ({min(values):.1f} to {max(values):.1f})"


def _ended(folder: Path) -> dict | None:
    """The final evaluation of an arm, which alone has a linear probe."""
    return next((line for line in _lines(folder / "metrics.jsonl") if "eval/linear_top1" in line), None)


def _lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


if __name__ == "__main__":
    main()
