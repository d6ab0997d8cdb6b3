"""The examples of docs/extending.md run as they are written, and the lines that register them suffice."""

import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from raymask.masks import Mask
from raymask.trial import BACKBONE, trial

ROOT = Path(__file__).parent.parent
PAGE = 70  # lines of a page


class Example(NamedTuple):
    """A file to add, and the lines (file, old, new) that register it."""

    path: str
    code: str
    changes: list[tuple[str, str, str]]


def examples() -> dict[str, Example]:
    text = (ROOT / "docs" / "extending.md").read_text()
    found = {}
    for code, diff in re.findall(r"```python\n(.*?)```\n\n```diff\n(.*?)```", text, re.S):
        path = code.splitlines()[0].removeprefix("# ")
        found[Path(path).stem] = Example(path, code, _changes(diff))
    return found


def _changes(diff: str) -> list[tuple[str, str, str]]:
    """Each old line with the new ones that follow it."""
    first, *lines = diff.splitlines()
    changes: list[tuple[str, str, str]] = []
    for line in lines:
        if line.startswith("-"):
            changes.append((first.removeprefix("--- "), line[1:] + "\n", ""))
        else:
            path, old, new = changes[-1]
            changes[-1] = path, old, new + line[1:] + "\n"
    return changes


EXAMPLES = examples()
CHOSEN_BY = {
    "hole": ["mask.strategy.kind=hole"],
    "detail": ["method.kind=detail", "method.head.out_dim=64", "mask.strategy.kind=attention"],
    "breathing": ["mask.ratio.kind=breathing", "mask.ratio.low=0.2", "mask.ratio.high=0.6"],
    "simmim": ["method.kind=simmim"],
}
SCRIPT = """
import sys
from raymask import config, methods
assert methods.__file__.startswith(sys.argv[1]), methods.__file__
chosen = config.load("dino-random-mask-laptop", sys.argv[2:])
assert config.build(config.to_tree(chosen)) == chosen
methods.build_method(chosen)
"""


def test_there_is_an_example_of_every_part():
    assert set(EXAMPLES) == set(CHOSEN_BY)


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_runs_as_written_and_fits_a_page(name, tmp_path):
    example = EXAMPLES[name]
    assert len(example.code.splitlines()) <= PAGE
    file = tmp_path / f"{name}.py"
    file.write_text(example.code)
    runpy.run_path(str(file), run_name="__main__")


def test_the_example_of_a_method_has_a_loss_where_nothing_is_hidden(tmp_path):
    file = tmp_path / "simmim.py"
    file.write_text(EXAMPLES["simmim"].code)
    example = runpy.run_path(str(file))
    method = example["SimMimMethod"](example["SimMim"](), BACKBONE, Mask(start=0.9), seed=0)
    assert [(report["loss"], report["mask_ratio"]) for report in trial(method, steps=1)] == [(0, 0)]


@pytest.mark.slow
@pytest.mark.parametrize("name", EXAMPLES)
def test_the_lines_under_an_example_make_it_a_choice_of_the_config(name, tmp_path):
    example = EXAMPLES[name]
    for room in ("raymask", "pipelines"):
        shutil.copytree(ROOT / room, tmp_path / room, ignore=shutil.ignore_patterns("data", "__pycache__"))
    (tmp_path / example.path).write_text(example.code)
    for path, old, new in example.changes:
        text = (tmp_path / path).read_text()
        assert text.count(old) == 1, old
        (tmp_path / path).write_text(text.replace(old, new))
    module = example.path.removesuffix(".py").replace("/", ".")
    for command in (["-m", module], ["-c", SCRIPT, str(tmp_path), *CHOSEN_BY[name]]):
        done = subprocess.run(
            [sys.executable, *command], cwd=tmp_path, capture_output=True, text=True, timeout=200
        )
        assert done.returncode == 0, done.stderr
