"""What a job runs: the user's command with nothing in it that means another thing on the cluster."""

import re
import shlex
from pathlib import Path

import pytest
import yaml

from raymask.config import Config, load
from raymask.distributed.job_command import Command, command
from raymask.distributed.job_command import paths as paths_of
from raymask.distributed.jobs import prefix
from raymask.schema import kind_of
from tests.test_every_field_is_read import classes

SHARED = ["data=/mnt/a", "run.root=/mnt/runs"]


def job(here: Path, *arguments: str, verb: str = "train") -> Command:
    return command(verb, list(arguments), here=here)


def told(sent: Command) -> dict[str, str]:
    """The settings of a command, by key."""
    return dict(word.split("=", 1) for word in sent.words if "=" in word)


def test_the_run_is_named_goes_on_and_trains_on_workers_of_the_jobs_own_cluster(tmp_path: Path):
    sent = job(tmp_path, "dino-laptop", *SHARED, "mask.ratio=0.4")
    assert sent.words[:5] == ("python", "-m", "raymask", "train", "dino-laptop")
    assert told(sent) == {
        "data": "/mnt/a",
        "mask.ratio": "0.4",
        "run.name": "dino-laptop",
        "run.root": "/mnt/runs",
        "run.resume": "true",
        "workers": "1",
        "cluster.address": "auto",
    }
    assert (sent.name, sent.folder) == ("dino-laptop", "/mnt/runs/dino-laptop")


def test_what_the_job_reads_is_the_config_that_was_checked(tmp_path: Path):
    asked = ["run.name=Männer & 'Frauen'", "workers=2:8", "train.epochs=3", "evaluate.knn=[5, 20]"]
    sent = job(tmp_path, "dino-laptop", *SHARED, *asked)
    words = shlex.split(sent.entrypoint)
    there = load(words[4], words[5:])
    here = load("dino-laptop", [*SHARED, *asked, "run.resume=true", "cluster.address=auto"])
    assert there == here


def test_the_clusters_address_is_where_the_job_is_sent_not_where_it_looks(tmp_path: Path):
    sent = job(tmp_path, "dino-laptop", *SHARED, "cluster.address=10.0.0.5:6379", "workers=null")
    assert sent.address == "10.0.0.5:6379" and told(sent)["cluster.address"] == "auto"
    assert told(sent)["workers"] == "null"


def test_data_that_is_here_is_named_by_its_absolute_path(tmp_path: Path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "shards.txt").write_text("/mnt/0.tar")
    for given, meant in (("photos", "photos"), ("@shards.txt", "@shards.txt"), ("s/{000..009}.tar", None)):
        sent = job(tmp_path, "dino-laptop", f"data={given}", "run.root=/mnt/runs")
        mark, bare = ("@", given[1:]) if given[0] == "@" else ("", given)
        assert told(sent)["data.train"] == f"{mark}{tmp_path / bare}", meant
        assert "data" not in told(sent)
    for kept in ("s3://bucket/a.tar", "/mnt/a", "@/mnt/list"):
        assert told(job(tmp_path, "dino-laptop", f"data={kept}", "run.root=/mnt/runs"))["data"] == kept


REFUSED = {
    (
        "dino-laptop",
        "data=/a",
    ): "run.root=runs is relative, and a job's working directory is the unpacked package",
    ("dino-laptop", "data=photos", "run.root=/b"): "data.train=photos is relative, and there is no ",
    ("dino-laptop", "run.root=/b"): "data.train is not set",
    (
        "dino-laptop",
        "data=/a",
        "run.root=/b",
        "mask.ration=1",
    ): "unknown key 'mask.ration': did you mean 'mask.rat",
    ("dinoo", "data=/a", "run.root=/b"): "unknown preset 'dinoo': did you mean 'dino'?",
    (): "say what to train, a preset ('raymask presets' lists them) or a YAML file: raymask submit train",
    ("data=/a",): "say what to train",
    ("../mine.yaml", "data=/a", "run.root=/b"): "the config file ../mine.yaml lies outside",
}


@pytest.mark.parametrize(("arguments", "sentence"), REFUSED.items(), ids=[" ".join(a) for a in REFUSED])
def test_what_would_fail_on_the_cluster_is_refused_here(tmp_path: Path, monkeypatch, arguments, sentence):
    here = tmp_path / "project"
    here.mkdir()
    monkeypatch.chdir(here)
    (tmp_path / "mine.yaml").write_text("extends: dino-laptop\n")
    with pytest.raises(ValueError, match=re.escape(sentence)) as refused:
        job(here, *arguments)
    assert len(str(refused.value).splitlines()) == 1


def test_only_training_and_searching_are_jobs(tmp_path: Path):
    with pytest.raises(ValueError, match="'pack' is nothing that a job can do"):
        job(tmp_path, "photos", "shards", verb="pack")


def test_a_config_file_is_named_as_the_package_holds_it(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "recipes").mkdir()
    file = tmp_path / "recipes" / "mine.yaml"
    file.write_text("extends: dino-laptop\ndata: {train: /mnt/a}\nrun: {root: /mnt/runs}\n")
    for given in ("recipes/mine.yaml", str(file)):
        sent = job(tmp_path, given)
        assert sent.words[4] == "recipes/mine.yaml" and sent.files == ("recipes/mine.yaml",)
        assert sent.name == "mine" and sent.folder == "/mnt/runs/mine"


def test_weights_and_a_cache_are_made_absolute_too(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "deit.safetensors").write_bytes(b"")
    sent = job(
        tmp_path, "maskedkd-50-laptop", *SHARED, "method.teacher.weights=deit.safetensors", "data.cache=cache"
    )
    assert told(sent)["method.teacher.weights"] == str(tmp_path / "deit.safetensors")
    assert told(sent)["data.cache.folder"] == str(tmp_path / "cache")


# Texts of a config that name no file: a new one is added here, or to the paths of job_command.py.
NO_FILES = {
    *("Run.name", "Run.root", "Run.mirror", "Cluster.address", "Cluster.mirror"),
    *("Backbone.name", "FrozenNetwork.name"),
}


def test_every_text_of_a_config_is_known_to_name_a_file_or_not():
    found = {
        (model.__name__, name)
        for model in classes(Config)
        for name, field in model.model_fields.items()
        if field.annotation in (str, str | None) and not (name == "kind" and kind_of(model))
    }
    named = {("Data", "train"), ("Data", "val"), ("Cache", "folder")}
    rest = {f"{model}.{name}" for model, name in found - named if name != "weights"}
    assert rest <= NO_FILES, rest - NO_FILES
    tree = {
        "data": {"train": "a", "val": None, "cache": {"folder": "b"}},
        "x": {"y": {"weights": "c"}, "name": "d"},
    }
    assert dict(paths_of(tree)) == {"data.train": "a", "data.cache.folder": "b", "x.y.weights": "c"}


def test_a_search_is_sent_with_its_space_preset_and_place(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(
        '"""Does the ratio matter?"""\nMETRIC = "eval/knn20_top1"\n'
        "def suggest(trial):\n    return {'mask.ratio': trial.suggest_float('ratio', 0.1, 0.9)}\n"
    )
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump({"extends": "dino-random-mask-laptop"}))
    words = ["mine.py", "preset=mine.yaml", "budget=4000", "trials=4", "data=/mnt/a", "root=/mnt/runs"]
    sent = job(tmp_path, *words, verb="tune")
    assert sent.words[:5] == ("python", "-m", "raymask", "tune", "mine.py")
    assert told(sent) == {
        "preset": "mine.yaml",
        "budget": "4000",
        "trials": "4",
        "data": "/mnt/a",
        "name": "mine-mine",
        "root": "/mnt/runs",
        "run.resume": "true",
        "cluster.address": "auto",
    }
    assert sent.folder == "/mnt/runs/mine-mine" and set(sent.files) == {"mine.py", "mine.yaml"}
    with pytest.raises(ValueError, match="root=runs is relative"):
        job(tmp_path, *words[:-1], verb="tune")


def test_a_jobs_id_holds_what_an_address_may_hold_and_tells_names_apart():
    assert prefix("dino-laptop") == "raymask-dino-laptop"
    odd = {prefix(name) for name in ("a b", "a/b", "a?b", "a_b", "ä b")}
    assert len(odd) == 5 and all(each.isascii() and not set(" /?#") & set(each) for each in odd)
