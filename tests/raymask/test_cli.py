"""The command line: one sentence on stderr and an exit code, never a traceback."""

import inspect
import json
import os
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import pytest
from PIL import Image

from pipelines.inspect import Inspect
from pipelines.plan import Packing
from pipelines.verify import Verify
from raymask.bench import Bench
from raymask.cli import app, main
from raymask.config import Config
from raymask.settings_help import explained, rows
from raymask.signals import Stopped
from tests.conftest import write_photos


@pytest.fixture
def call(monkeypatch, capsys):
    """Runs a command line in this process; gives its exit code, stdout and stderr."""

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["raymask", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            main()
            raise SystemExit(0)
        out, err = capsys.readouterr()
        return int(end.value.code or 0), out, err

    return run


def refused(call, *arguments: object) -> str:
    """The one sentence with which a command line is refused."""
    code, out, err = call(*arguments)
    assert code == 2 and not out and "Traceback" not in err
    assert len(err.splitlines()) == 1, err
    return err


def test_every_verb_is_there_and_has_a_line_of_help(call):
    code, out, _ = call("--help")
    assert code == 0
    for verb in [
        "train",
        "resume",
        "pack",
        "inspect",
        "bench",
        "evaluate",
        "export",
        "report",
        "demo",
        "doctor",
        "presets",
        "submit",
        "status",
        "stop",
    ]:
        assert f"  {verb} " in out
    assert {command.callback.__doc__ is not None for command in app.registered_commands} == {True}


@pytest.mark.parametrize(
    ("verb", "model"), [("pack", Packing), ("inspect", Inspect), ("verify", Verify), ("bench", Bench)]
)
def test_the_help_of_a_verb_explains_each_of_its_settings(call, verb, model):
    _, out, _ = call(verb, "--help")
    listed = dict(rows(model))
    assert all(text for text in listed.values()), listed
    assert all(f"\n  {key}" in out for key in listed) and set(model.model_fields) <= set(explained(model))
    assert len(out.splitlines()) < 70 and "=VALUE" in out


def test_no_verbs_line_of_help_breaks_off(call):
    _, out, _ = call("--help")
    assert "e.g." not in out and "Train a backbone: raymask train" in out


def test_presets_are_listed_with_paper_and_masks_and_one_is_printed_as_yaml(call):
    code, out, _ = call("presets")
    assert code == 0 and "dino-random-mask\n" in out and "arXiv 2506.10582" in out and "masks: " in out
    code, out, _ = call("presets", "dino-random-mask-laptop")
    assert code == 0 and "views: student_globals" in out


SENTENCES = {
    ("train", "dinoo"): "unknown preset 'dinoo': did you mean 'dino'?",
    ("train", "dino", "mask.ration=0.3"): "unknown key 'mask.ration': did you mean 'mask.ratio'?",
    ("train", "dino", "train.precision=fp8"): "'train.precision' is 'fp8': possible are auto, float32, bf16",
    ("train", "dino"): "data.train is not set",
    ("train", "dino", "data=/no/such/folder"): "the path does not exist",
    ("train", "dino", "mask.ratio=half"): "mask.ratio: 'half' is neither a number nor a schedule",
    ("train", "dino", "oops"): "'oops' is not key=value",
    ("resume", "/no/such/run"): "there is no run '/no/such/run' (looked for /no/such/run); none has begun",
    ("resume", "nosuch"): "none has begun in runs/; one elsewhere is given by its directory (run.root/",
    ("report", "/no/such/run"): "there is no run '/no/such/run'",
    ("evaluate", "/no/such/run"): "there is no run '/no/such/run'",
    ("evaluate", "."): "is no run directory, no checkpoint and no export",
    ("export", "/no/such/run"): "there is no run '/no/such/run'",
    ("train",): "'train' needs a preset (attmask-high, ",
    ("tune",): "'tune' needs a space, which says what is searched (dmjd_views, guidance, ",
    ("submit",): "'submit' needs train or tune and all that follows these words",
    ("resume",): "'resume' needs the directory of a run or a search, or its name in runs/: none has begun",
    ("status",): "'status' needs the directory of a run or a search, its name in runs/, or the name of a job",
    ("stop",): "'stop' needs the directory of a run or a search, its name in runs/, or the name of a job",
    ("evaluate",): "'evaluate' needs a run, one of its checkpoints",
    ("export",): "'export' needs a run, one of its checkpoints",
    ("report",): "'report' needs the directory of a run",
    ("pack",): "'pack' needs data: a folder of images",
    ("pack", "photos"): "'pack' needs a new folder for the shards as well",
    ("inspect",): "'inspect' needs data: a folder of images",
    ("verify",): "'verify' needs data: a folder of images",
    ("train", "dino", "--epochs=3"): "no such option: --epochs; settings are given as KEY=VALUE",
    ("status", "a", "b"): "'status': got unexpected extra argument(s) (b); 'raymask status --help' says",
    ("frobnicate",): "no such command 'frobnicate': 'raymask --help' lists the verbs",
    ("export", "/no/such/run", "netwrok=teacher"): "unknown key 'netwrok': did you mean 'network'?",
    ("pack", "/no/such/folder", "/tmp/never"): "the path does not exist",
    ("pack", "/no/such/folder", "/tmp/never", "holdot=0.1"): "unknown key 'holdot': did you mean 'holdout'?",
    ("inspect", "/no/such/folder"): "the path does not exist",
}


def test_every_argument_that_a_verb_needs_is_asked_for_in_our_own_words(call, tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for command in app.registered_commands:
        assert command.callback is not None
        verb = command.name or command.callback.__name__
        parameters = inspect.signature(command.callback).parameters.values()
        if any(parameter.default is inspect.Parameter.empty for parameter in parameters):
            assert f"'{verb}' needs " in refused(call, verb)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_what_trains_nothing_is_ended_at_once_with_the_signals_exit_code(call, monkeypatch, number, code):
    def asked(*_: object) -> None:
        signal.raise_signal(number)

    monkeypatch.setattr("pipelines.pack.pack", asked)
    before = {each: signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)}
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background has it ignored
    try:
        ended, out, err = call("pack", "photos", "shards")
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
    assert (ended, out) == (code, "") and "Traceback" not in err


@pytest.mark.parametrize(("arguments", "sentence"), SENTENCES.items(), ids=lambda value: str(value)[:60])
def test_a_users_mistake_gets_one_sentence(call, tmp_path: Path, monkeypatch, arguments, sentence):
    monkeypatch.chdir(tmp_path)
    assert sentence in refused(call, *arguments)
    assert list(tmp_path.iterdir()) == []


def test_bad_data_gets_one_sentence_and_leaves_nothing_behind(call, tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "a.txt").write_text("no image")
    torn = tmp_path / "torn.tar"
    torn.write_bytes(b"\0" * 100 + b"x" * 100)
    for source in ("empty", "text", "torn.tar"):
        refused(call, "pack", source, tmp_path / "out")
        refused(call, "train", "dino-laptop", f"data={source}")
    assert not (tmp_path / "runs").exists()


def test_debug_shows_the_traceback_of_what_no_sentence_of_ours_explains(monkeypatch):
    def fails(error: Exception) -> None:
        def train(config: object) -> None:
            json.loads("{") if isinstance(error, ValueError) else exec("raise error", {"error": error})

        monkeypatch.setattr("raymask.train.train", train)
        monkeypatch.setattr(sys, "argv", ["raymask", "train", "dino", "debug=true"])
        with pytest.raises(type(error)):
            main()

    fails(ValueError("of another library"))
    fails(OSError(28, "No space left on device"))


def test_debug_shows_no_traceback_of_a_users_mistake(call, tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for arguments in (("data=/no/such/folder",), ("mask.ration=0.3",), ("train.precision=fp8",)):
        assert refused(call, "train", "dino", "debug=true", *arguments)


def test_a_debug_run_that_is_asked_to_stop_says_so_without_a_traceback(call, monkeypatch):
    def stopped(config: object) -> None:
        raise Stopped("stopped; continue with 'raymask resume runs/x'", exit_code=130)

    monkeypatch.setattr("raymask.train.train", stopped)
    code, _, err = call("train", "dino", "debug=true")
    assert (code, err) == (130, "raymask: stopped; continue with 'raymask resume runs/x'\n")


def test_a_run_remembers_where_its_data_are(call, tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_photos(tmp_path / "photos", per_class=2)
    seen: list[str | None] = []

    def train(config: Config) -> None:
        seen.extend([config.data.train, config.data.val])
        raise Stopped("enough", exit_code=0)

    monkeypatch.setattr("raymask.train.train", train)
    call("train", "dino", "data=photos", "data.val=s3://bucket/photos")
    assert seen == [str(tmp_path / "photos"), "s3://bucket/photos"]


def test_what_a_terminal_would_obey_is_escaped(call):
    code, _, err = call("inspect", "no such\x1b[2J folder")
    assert code == 2 and r"\x1b[2J" in err and err.rstrip("\n").isprintable()


def test_every_process_says_what_it_met(call, monkeypatch):
    monkeypatch.setenv("RANK", "3")
    code, _, err = call("presets", "no-such-preset")
    assert code == 2 and err.startswith("rank 3: raymask: unknown preset")


def test_an_image_beyond_pillows_own_limit_is_named_without_pillows_warning(call, tmp_path: Path):
    source = write_photos(tmp_path / "photos", per_class=4)
    Image.new("1", (10_000, 10_000)).save(source / "cat" / "huge.png")
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        code, out, err = call("pack", source, tmp_path / "shards")
    assert code == 0 and "left out: 1 too many pixels" in out and "Warning" not in err


def test_a_folder_of_photos_becomes_shards_that_inspect_and_doctor_can_read(call, tmp_path: Path):
    source = write_photos(tmp_path / "photos", per_class=4)
    code, out, _ = call("pack", source, tmp_path / "shards", "holdout=0.25")
    assert code == 0 and "train: 6 images of 2 classes" in out
    code, out, _ = call("inspect", tmp_path / "shards", f"sheet={tmp_path / 'sheet.png'}")
    assert code == 0 and "images       6" in out and (tmp_path / "sheet_val.png").stat().st_size > 1000
    code, out, _ = call("doctor", tmp_path / "shards")
    assert code == 0 and "6 images of 2 classes in train" in out and "WRONG" not in out


@pytest.mark.parametrize("verb", ["inspect", "verify"])
def test_a_second_path_is_no_place_to_write_to(call, tmp_path: Path, verb):
    (tmp_path / "b.tar").write_bytes(b"data")
    said = refused(call, verb, tmp_path / "a.tar", tmp_path / "b.tar")
    assert "b.tar is no setting (KEY=VALUE" in said and "in quotes: 'a-*.tar'" in said
    assert "a-{000..127}.tar" in refused(call, "pack", "a.tar", tmp_path / "never", "out")
    assert (tmp_path / "b.tar").read_bytes() == b"data" and not (tmp_path / "never").exists()


def test_a_sheet_never_takes_the_place_of_anything_but_a_sheet(call, tmp_path: Path):
    source = write_photos(tmp_path / "photos", per_class=2)
    manifest, text = tmp_path / "dataset.json", tmp_path / "notes.png"
    for file in (manifest, text):
        file.write_text("{}")
    assert "a name that ends in .png" in refused(call, "inspect", source, f"sheet={manifest}")
    assert "notes.png exists and is no PNG" in refused(call, "inspect", source, f"sheet={text}")
    assert [file.read_text() for file in (manifest, text)] == ["{}", "{}"]
    sheet = tmp_path / "sheet.png"
    for _ in range(2):
        assert call("inspect", source, f"sheet={sheet}")[0] == 0 and sheet.stat().st_size > 1000


def test_doctor_says_what_is_wrong_with_data_and_exits_with_1(call, tmp_path: Path):
    source = write_photos(tmp_path / "photos", per_class=3)
    (source / "cat" / "broken.png").write_bytes(b"not an image")
    code, out, _ = call("doctor", source)
    assert code == 1 and "WRONG  data" in out and "broken.png" in out


def test_mismatched_torch_and_torchvision_are_recognised():
    from raymask.doctor import _advice

    assert "install both again from one index" in _advice("operator torchvision::nms does not exist")


@pytest.mark.slow
def test_ctrl_c_ends_a_run_in_good_order_with_exit_code_130(photos: Path, tmp_path: Path):
    command = [
        sys.executable,
        "-m",
        "raymask",
        "train",
        "dino-laptop",
        f"data={photos}",
        "train.global_batch=8",
    ]
    process = subprocess.Popen(
        [*command, "train.epochs=1000", "evaluate.knn=[5]", "train.log_steps=1", "run.name=x"],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    lines = tmp_path / "runs" / "x" / "metrics.jsonl"
    until = time.monotonic() + 200
    while not (lines.exists() and "loss" in lines.read_text()):
        assert process.poll() is None and time.monotonic() < until
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=100)
    assert process.returncode == 130
    assert (
        err.splitlines()[-1] == f"raymask: stopped; continue with 'raymask resume {tmp_path / 'runs' / 'x'}'"
    )
    assert (tmp_path / "runs" / "x" / "checkpoints" / "last").exists()
