"""A run that goes on under other settings than it began with: a population's trial.

Its config says as schedules what held when, so that it stays an ordinary run, which its config trains again.
"""

import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from raymask import checkpoint, metrics, run, state
from raymask.config import Config, build, to_tree, to_yaml


def rewrite(folder: Path, config: Config) -> None:
    """Makes the run in `folder`, if there is one, that of `config`: its file and its latest checkpoint."""
    found = checkpoint.latest(folder / "checkpoints")
    if found is not None:
        described = state.describe(found)
        tree = state.with_found(to_tree(config), described["config"])
        # By renaming: a linked file stays what it was.
        run.write_json(found / "state.json", described | {"config": tree})
        (folder / "config.yaml").write_text(to_yaml(build(tree)))


def copy_run(source: Path, folder: Path) -> None:
    """Replaces the run in `folder` by the one to which the checkpoint `source` belongs, as it was then."""
    step, donor = state.describe(source)["step"], source.parent.parent
    for old in ("checkpoints", "eval"):
        shutil.rmtree(folder / old, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copytree(source, folder / "checkpoints" / source.name, copy_function=_link)
    for name in ("metrics.jsonl", "env.json"):
        shutil.copyfile(donor / name, folder / name)
    metrics.truncate(folder / "metrics.jsonl", step)


def _link(source: str, target: str) -> None:
    """A checkpoint is never written to again: a second name will do, on file systems that have such."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def prune(runs: Iterable[Path], keep: int) -> None:
    """Removes all but the newest checkpoints of runs that have ended: nobody goes on from the others."""
    for run_folder in runs:
        for old in checkpoint.steps(run_folder / "checkpoints")[:-keep]:
            shutil.rmtree(old)
