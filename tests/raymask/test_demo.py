"""The demo walks the whole main job, on its own images and on a person's."""

import json
from pathlib import Path

import pytest

from pipelines.source import open_splits
from raymask.demo import FASHION, Demo, demo
from tests.raymask.tiny_run import pictures

QUICK = ("train.global_batch=16", "evaluate.every_images=null", "train.log_steps=1", "evaluate.linear=false")


def test_the_embedded_images_are_the_ten_thousand_with_their_licence():
    source = open_splits(FASHION)[""]
    assert len(source) == 10_000
    assert (FASHION.parent / "LICENSE").read_text().count("Zalando") >= 1


def test_a_persons_labelled_folder_ends_with_three_accuracies(tmp_path, capsys):
    data = pictures(tmp_path / "mine", count=16)
    run = demo(Demo(data=str(data), out=str(tmp_path / "out"), minutes=0.001), QUICK)
    said = capsys.readouterr().out
    for words in ("backbone trained", "same one untrained", "raw pixels", "report:"):
        assert words in said
    assert (run / "report.html").exists()
    assert (run / "export" / "teacher" / "model.safetensors").exists()
    results = json.loads(next((run / "eval").glob("teacher_step_*.json")).read_text())["results"]
    assert "pixels/knn20_top1" in results or "pixels/knn48_top1" in results


def test_a_flat_folder_skips_accuracies_and_says_so(tmp_path, capsys):
    data = pictures(tmp_path / "flat", classes=(), count=40)
    run = demo(Demo(data=str(data), out=str(tmp_path / "out"), minutes=0.001), QUICK)
    said = capsys.readouterr().out
    assert "no accuracies" in said and "backbone trained" not in said
    assert (run / "report.html").exists()


def test_a_second_demo_uses_the_shards_again_and_leaves_the_first_run_alone(tmp_path):
    data = pictures(tmp_path / "mine", count=16)
    settings = Demo(data=str(data), out=str(tmp_path / "out"), minutes=0.001)
    first, second = demo(settings, QUICK), demo(settings, QUICK)
    assert (first.name, second.name) == ("run", "run-2")


def test_an_empty_folder_is_refused_and_nothing_is_left(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError):
        demo(Demo(data=str(tmp_path / "empty"), out=str(tmp_path / "out")))
    assert not Path(tmp_path / "out").exists()
