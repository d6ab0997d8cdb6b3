"""CI tests what it says it tests: what it lacks fails there, and is skipped only on machines of people."""

import subprocess
from pathlib import Path

import pytest

from tests.conftest import lacks, needed


def test_what_is_missing_is_skipped_on_a_machine_of_ones_own_and_fails_in_ci(monkeypatch):
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception):
        needed("no_such_package")
    assert lacks("no_such_package") and not lacks("json") and needed("json").loads("1") == 1
    monkeypatch.setenv("CI", "true")
    with pytest.raises(ModuleNotFoundError):
        needed("no_such_package")
    assert not lacks("no_such_package"), "the tests run, and fail"


@pytest.mark.parametrize(("ci", "goes_on"), [("", True), ("true", False)])
def test_make_test_goes_on_without_ffcv_unless_it_is_ci(tmp_path: Path, ci, goes_on):
    lines = (Path(__file__).parent.parent / "Makefile").read_text().split("\ntest:")[1].splitlines()[1:]
    ffcv = "\n".join(lines[: next(n for n, line in enumerate(lines) if not line.endswith("\\")) + 1])
    text = f"FFCV := no-such-file\nMAKE := false\ntest:\n{ffcv}\n\t@echo tests run\n"
    (tmp_path / "Makefile").write_text(text)
    done = subprocess.run(
        ["make", "test"],
        cwd=tmp_path,
        env={"PATH": "/usr/bin:/bin", "CI": ci},
        capture_output=True,
        text=True,
    )
    assert "FFCV cannot be installed here" in done.stdout
    assert ("tests run" in done.stdout, done.returncode == 0) == (goes_on, goes_on)
