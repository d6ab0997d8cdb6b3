"""The command that replays cases tells of every one of them."""

import json
from pathlib import Path

import pytest

from tests.golden.__main__ import main
from tests.golden.cases import REPLAYS, Case, Deviation


def test_a_replay_that_breaks_fails_its_case_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    def breaks(case: Case) -> list[Deviation]:
        raise KeyError("no such\ntensor")

    monkeypatch.setitem(REPLAYS, "breaking", breaks)
    monkeypatch.setitem(REPLAYS, "comparing nothing", lambda case: [])
    monkeypatch.setitem(REPLAYS, "exact", lambda case: [Deviation("all", 0.0, 0.0)])
    for name, kind in (("a", "breaking"), ("b", "comparing nothing"), ("c", "exact")):
        (tmp_path / f"{name}.json").write_text(json.dumps({"kind": kind}))
    assert main([str(tmp_path)]) == 1
    broken, empty, exact, total = capsys.readouterr().out.splitlines()
    assert broken.startswith("FAIL  breaking") and "KeyError" in broken
    assert empty.startswith("FAIL  comparing nothing") and "compared nothing" in empty
    assert exact.startswith("ok    exact") and total == "1 of 3 cases replay"
