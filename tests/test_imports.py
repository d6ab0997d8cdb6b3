"""Imports run one way: pipelines <- raymask <- tune_spaces; heavy and optional things have their place."""

import ast
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ROOMS = ("pipelines", "raymask", "tune_spaces")


def files() -> list[Path]:
    return sorted(path for room in ROOMS for path in (ROOT / room).rglob("*.py"))


def imports(path: Path) -> Iterator[str]:
    """The absolute names of the modules that a file imports, wherever in it."""
    package = path.relative_to(ROOT).parts[:-1]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            yield ".".join([*above, node.module or ""]).rstrip(".")


def top(name: str) -> str:
    return name.split(".")[0]


def test_the_rooms_are_found():
    assert {path.relative_to(ROOT).parts[0] for path in files()} >= {"pipelines", "raymask"}


@pytest.mark.parametrize("path", files(), ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_run_one_way(path: Path):
    where = path.relative_to(ROOT)
    found = {top(name) for name in imports(path)}
    room = where.parts[0]
    allowed = {
        "pipelines": {"pipelines"},
        "tune_spaces": {"tune_spaces", "raymask"},
        "raymask": {"raymask", "pipelines"},
    }
    if room == "raymask" and (where.parts[1] in ("distributed", "cli.py")):
        allowed["raymask"].add("tune_spaces")
    assert found & set(ROOMS) <= allowed[room]
    assert "tests" not in found
    if room != "tune_spaces" and where.parts[:2] != ("raymask", "distributed"):
        assert "ray" not in found, "ray belongs in raymask/distributed/ and tune_spaces/"
    if where.parts[:2] != ("pipelines", "formats"):
        assert not found & {"webdataset", "ffcv"}, "these belong in pipelines/formats/"


def test_help_takes_under_half_a_second_and_imports_nothing_heavy():
    heavy = ("torch", "numba", "timm", "ray", "numpy", "pydantic")
    script = (
        "import sys\nfrom raymask.cli import app\n"
        "try: app(['--help'])\nexcept SystemExit as end: assert not end.code, end.code\n"
        f"assert not [m for m in {heavy!r} if m in sys.modules], [m for m in {heavy!r} if m in sys.modules]"
    )
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 0, done.stderr
    assert "train" in done.stdout
    # Processor time, which is the time that passes on a machine with nothing else to do.
    assert (after.ru_utime + after.ru_stime) - (before.ru_utime + before.ru_stime) < 0.5
