"""Does masking the student's global views help DINO? Three arms at equal images seen, side by side.

    python -m tests.benchmarks.mask_arms SHARDS RUNS      trains the arms that RUNS lacks, prints the table
    python -m tests.benchmarks.mask_arms SHARDS RUNS mask.ratio=0.5 run.seed=1

SHARDS is a folder packed by `raymask pack` with train and val. Each arm is an ordinary run of one thread in a
process of its own, so that they share the machine fairly; a killed arm goes on where it was.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

ARMS = {"none": "dino", "globals": "dino-random-mask", "student": "dino-random-mask-student"}
SMALL = [
    "backbone.name=vit_tiny_patch16_224",
    "backbone.dim=128",
    "backbone.depth=4",
    "backbone.heads=4",
    "backbone.drop_path=0.0",
    "method.head.out_dim=2048",
    "optim.base_lr=2e-3",
    "train.epochs=12",
    "train.checkpoint_images=20000",
    "evaluate.every_images=38000",
    "evaluate.linear=true",
    "data.threads=1",
]
COLUMNS = ("knn10_top1", "knn20_top1", "knn100_top1", "knn200_top1", "linear_top1")


def main(shards: str, runs: str, *changes: str) -> None:
    """Trains what is missing, and prints one row an arm and evaluation."""
    started = [_start(arm, shards, Path(runs), changes) for arm in ARMS]
    if any(process.wait() for process in started if process is not None):
        raise SystemExit("an arm failed; its log is train.log in its run directory")
    print("| arm | images seen | " + " | ".join(COLUMNS) + " |")
    print("|" + "---|" * (len(COLUMNS) + 2))
    for arm in ARMS:
        for line in _evaluations(Path(runs) / arm):
            cells = [f"{line[f'eval/{c}']:.1f}" if f"eval/{c}" in line else "" for c in COLUMNS]
            print(f"| {arm} | {line['images']:,} | " + " | ".join(cells) + " |")


def _start(arm: str, shards: str, runs: Path, changes: tuple[str, ...]) -> subprocess.Popen | None:
    """The process that trains or continues an arm; None for one that is done."""
    folder = runs / arm
    if any("eval/linear_top1" in line for line in _evaluations(folder)):
        return None
    command = [sys.executable, "-m", "raymask"]
    if (folder / "checkpoints").exists():
        command += ["resume", str(folder)]
    else:
        command += ["train", f"{ARMS[arm]}-laptop", f"data={shards}", f"run.root={runs}", f"run.name={arm}"]
        command += [*SMALL, *changes]
    return subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"})


def _evaluations(folder: Path) -> list[dict]:
    lines = folder / "metrics.jsonl"
    if not lines.exists():
        return []
    found = [json.loads(line) for line in lines.read_text().splitlines()]
    return [line for line in found if "eval/knn20_top1" in line]


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
