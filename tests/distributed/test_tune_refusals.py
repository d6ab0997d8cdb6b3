"""What a search is refused for: one sentence, before anything is started."""

from pathlib import Path

import pytest

from pipelines.lock import lock
from raymask.distributed.tune import resume_tune, tune
from raymask.run import LOCK
from tests.distributed.searching import given

SPACE = """'''What is tried here?'''
def suggest(trial):
    return {}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("refused")


REFUSED = [
    ("budget=960 trials=4 scheduler=pbt search=optuna", "moves the settings itself"),
    ("budget=960 trials=4 scheduler=pb2 search=grid", "moves the settings itself"),
    ("budget=960 trials=1 scheduler=pbt", "needs a population"),
    ("budget=960 trials=4 scheduler=asha against=flops", "stops trials by eval/knn5_top1 alone"),
    ("budget=960 trials=4 metric=loss", "cannot judge mask.ratio: fewer or easier hidden patches"),
    ("budget=960 trials=4 metric=knn20_top", "did you mean 'eval/knn20_top1'"),
    ("budget=960 trials=4 metric=knn200_top1", "asks for 200 neighbours, but the bank has 24 images"),
    ("budget=960 trials=4 metric=top1", "method.kind=dino trains none: choose metric=eval/knn20_top1"),
    ("budget=960 trials=4 metric=linear_top1", "measured at the end of a trial only"),
    ("budget=960 trials=4 metric=attention_entropy", "give mode=max or mode=min"),
    ("budget=100 trials=4", "too few for checks=4 evaluations"),
    ("budget=3 trials=4", "less than one for each of trials=4"),
    ("budget=960 trails=4", "did you mean 'trials'"),
    ("budget=960 trials=4 mask.ration=3", "did you mean 'mask.ratio'"),
    ("budget=960 train.steps=3", "say how long a trial is"),
    ("budget=960 run.name=a", "name=NAME names the search"),
    ("budget=960 run.mirror=s3://bucket/runs", "run.mirror keeps runs, not searches"),
    ("trials=4", "'budget' is missing"),
    ("budget=960 name=a/b", "no name of a folder"),
    ("budget=960 trials", "is not key=value"),
    ("budget=960 mae-laptop", "for instance, preset=mae-laptop"),
]


@pytest.mark.parametrize(("words", "sentence"), REFUSED, ids=[words for words, _ in REFUSED])
def test_what_cannot_work_is_refused_before_anything_starts(folder: Path, words: str, sentence: str):
    with pytest.raises(ValueError, match=sentence.replace("(", r"\(")):
        tune("mask_ratio", given(folder, *words.split()))
    assert not (folder / "mask_ratio-tiny").exists()


def test_an_unknown_space_is_refused_with_the_one_that_was_meant(folder: Path):
    with pytest.raises(ValueError, match="did you mean 'mask_ratio'"):
        tune("mask_ration", given(folder, "budget=960"))


def test_a_space_without_schedules_is_refused_to_a_population(folder: Path):
    with pytest.raises(ValueError, match="no MUTATIONS"):
        tune("optimiser", given(folder, "budget=960", "trials=4", "scheduler=pbt"))


def test_the_name_of_another_search_is_taken(folder: Path):
    (folder / "taken").mkdir(exist_ok=True)
    with pytest.raises(ValueError, match="never overwritten: name another with name=NAME"):
        tune("mask_ratio", given(folder, "budget=960", "trials=4", "name=taken"))
    (folder / "taken" / "search.yaml").touch()
    with pytest.raises(ValueError, match="raymask resume"):
        tune("mask_ratio", given(folder, "budget=960", "trials=4", "name=taken"))


@pytest.mark.parametrize(
    ("drawn", "sentence"),
    [
        ("{'mask.ration': 0.3}", "unknown key 'mask.ration': did you mean 'mask.ratio'"),
        ("{'mask.ratio': 1.5}", "leaves nothing visible"),
        ("{'mask.ratio': object()}", "mask.ratio as object, which is no plain value"),
        ("{'mask.ratio': {'kind': 'constant', 'value': trial}}", "mask.ratio.value as Trial"),
        ("{}", "it must return"),
        ("0.3", "it must return"),
        ("{'mask.ratio': 1 / 0}", "ZeroDivisionError"),
    ],
)
def test_a_broken_space_is_refused_by_its_name(tmp_path: Path, folder: Path, drawn: str, sentence: str):
    space = tmp_path / "own.py"
    space.write_text(SPACE.replace("return {}", f"return {drawn}"))
    with pytest.raises(ValueError, match=r"space own") as refused:
        tune(str(space), given(folder, "budget=960", "trials=4"))
    assert sentence in str(refused.value)


def test_a_file_that_is_no_space_is_refused(tmp_path: Path, folder: Path):
    for text, sentence in (
        ("x = 1", r"no function suggest\(trial\)"),
        ("import nothing_here", "cannot be run"),
    ):
        space = tmp_path / "own.py"
        space.write_text(text)
        with pytest.raises(ValueError, match=sentence):
            tune(str(space), given(folder, "budget=960"))


def test_a_search_that_runs_is_not_resumed_and_nothing_is_said_of_it_before(tmp_path: Path, capsys):
    (tmp_path / "search.yaml").write_text("search: {}\nchanges: []\n")
    with (tmp_path / LOCK).open("ab") as held:
        lock(held, busy="")
        with pytest.raises(ValueError, match=r"another process searches in .*: wait for it to end, or stop"):
            resume_tune(tmp_path)
    assert capsys.readouterr() == ("", "")
