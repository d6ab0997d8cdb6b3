"""Which images a run trains on and is judged by."""

import pytest
from pydantic import ValidationError

from pipelines.data import Data, available_cores, open_train_and_val


def test_a_bare_string_is_the_training_data():
    assert Data.model_validate("photos") == Data(train="photos")


def test_a_folder_with_both_splits_gives_both(photos):
    train, val = open_train_and_val(Data.model_validate(str(photos)))
    assert (len(train), len(val)) == (24, 8)


def test_splits_can_be_named_apart(photos):
    train, val = open_train_and_val(Data(train=str(photos / "train"), val=str(photos / "val")))
    assert (len(train), len(val)) == (24, 8)
    assert open_train_and_val(Data(train=str(photos / "val")))[1] is None


def test_data_that_is_not_set_or_not_there_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"data\.train is not set"):
        open_train_and_val(Data())
    with pytest.raises(ValueError, match="nowhere"):
        open_train_and_val(Data(train=str(tmp_path / "nowhere")))


def test_threads_default_to_the_cores(monkeypatch):
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    assert Data().thread_count == available_cores() >= 1
    assert Data(threads=0).thread_count == 0
    with pytest.raises(ValidationError):
        Data(threads=-1)


def test_processes_of_one_machine_share_its_cores(monkeypatch):
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "1000")
    assert Data().thread_count == 1
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "1")
    assert Data().thread_count == available_cores()
