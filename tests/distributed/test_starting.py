"""A run that starts is never silent for long, and says what it waits for."""

import logging
from dataclasses import dataclass
from pathlib import Path

import pytest

from raymask.config import load
from raymask.distributed import launch, starting
from raymask.distributed.bootstrap import _TOKENS, _is_news
from raymask.distributed.launch import train_on_ray
from raymask.distributed.starting import Starting
from tests.conftest import write_photos


@dataclass
class Known:
    """What is known of the workers' places."""

    placed: bool = False
    since: float | None = None


@pytest.fixture(autouse=True)
def _at_each_look(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(starting, "_EVERY", 0.0)


def test_each_stage_of_a_start_is_said_until_there_is_a_step(tmp_path: Path):
    log, places, said = tmp_path / "train.log", Known(), list[str]()
    log.write_text("time  step 10/20  of the attempt before\n")
    run = Starting(log, places, compiles=True, say=said.append)

    def look() -> str | None:
        said.clear()
        run.look()
        return said[-1].partition(": ")[2] if said else None

    assert look() == "Ray finds places for the workers"
    places.since = 1.0
    assert look() is None, "that they have no place is said elsewhere"
    places.placed, places.since = True, None
    assert look() == "the workers load torch and open the data"
    with log.open("a") as file:
        file.write("time  runs/a: 20 steps on CPU\n")
        file.flush()
        assert look() == "the first steps are computed, compiled before"
        file.write("time  step 11/20  loss 3\n")
    assert look() is None and run.over


def test_where_all_that_workers_print_is_shown_it_ends_with_their_places():
    places, said = Known(placed=True), list[str]()
    run = Starting(None, places, compiles=False, say=said.append)
    run.look()
    assert run.over and not said


def test_files_that_are_not_there_are_refused_before_anything_is_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    photos = write_photos(tmp_path / "photos", per_class=2)
    monkeypatch.setattr(launch, "connected", None)  # whoever came that far would fail otherwise
    places = [f"run.root={tmp_path}", "run.name=a", "workers=2"]
    for wrong, sentence in (
        ("data=/no/such/photos", "data.train=/no/such/photos: the path does not exist"),
        ("data.val=/no/such/photos", "data.val=/no/such/photos: the path does not exist"),
        (
            "method.teacher.weights=/no/such/run",
            "method.teacher.weights=/no/such/run: the path does not exist",
        ),
    ):
        preset = "maskedkd-50-laptop" if wrong.startswith("method") else "dino-laptop"
        with pytest.raises(ValueError, match="does not exist") as refused:
            train_on_ray(load(preset, [f"data={photos}", *places, wrong]))
        assert sentence in str(refused.value)
    assert not (tmp_path / "a").exists()


def test_of_rays_remarks_on_tokens_only_the_usual_one_is_left_out():
    def record(text: str) -> logging.LogRecord:
        return logging.LogRecord(_TOKENS, logging.WARNING, "", 0, text, None, None)

    assert not _is_news(record("Token authentication is enabled for this Ray cluster. Set ..."))
    assert _is_news(record("Token authentication is disabled for this Ray cluster. Anyone ..."))


def test_the_logger_and_the_remark_are_rays():
    from importlib.util import find_spec

    found = find_spec(_TOKENS)
    assert found is not None and found.origin is not None
    assert '"Token authentication is enabled for this Ray cluster' in Path(found.origin).read_text()
