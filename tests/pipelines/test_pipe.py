"""The promises of `pipe:`: refused unless allowed, run once, then a shard; its command is told to nobody."""

import pytest

from pipelines.data import Data, open_train_and_val
from pipelines.pack import Packing, pack
from pipelines.paths import expand
from pipelines.remote.settings import Cache
from pipelines.source import ShardError, open_source, open_splits
from tests.pipelines.storage import picture, shard


@pytest.fixture
def cache(tmp_path) -> Cache:
    return Cache(folder=str(tmp_path / "cache"), gb=0.001)


@pytest.mark.parametrize("path", ["pipe:touch CANARY", "@list.txt", ["pipe:touch CANARY"]])
def test_a_pipe_is_refused_and_not_run_unless_it_is_allowed(tmp_path, monkeypatch, path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "list.txt").write_text("pipe:touch CANARY\n")
    for action in (open_source, open_splits, lambda p: pack(p, "out", Packing(), progress=False)):
        with pytest.raises(ValueError, match=r"pipes are refused.*allow_pipe=true"):
            action(path)
    assert not (tmp_path / "CANARY").exists() and not (tmp_path / "out").exists()


def test_a_pipe_that_is_allowed_runs_once_and_is_a_shard(tmp_path, cache):
    path = shard(tmp_path / "a.tar", count=4)
    command = f"pipe:echo x >> {tmp_path}/count; cat {path}"
    for _ in range(2):
        source = open_source(command, cache=cache, allow_pipe=True)
        assert [source.read(n) for n in range(4)] == [picture(n) for n in range(4)]
        assert source.labels.tolist() == [0, 1, 2, 0]
    assert (tmp_path / "count").read_text() == "x\n"


def test_number_ranges_in_a_command_are_spelt_out_and_other_braces_are_the_shells(tmp_path, cache):
    for number in range(3):
        shard(tmp_path / f"a-{number}.tar", count=2, seed=number)
    command = (
        f"pipe:cat {tmp_path}/a-{{0..2}}.tar | awk '{{print}}' > /dev/null; cat {tmp_path}/a-{{0..2}}.tar"
    )
    assert len(expand(f"pipe:cat {tmp_path}/a-{{0..2}}.tar | cat", cache=cache, allow_pipe=True)) == 3
    assert len(expand(command, cache=cache, allow_pipe=True)) == 9
    assert len(open_source(f"pipe:cat {tmp_path}/a-{{0..2}}.tar", cache=cache, allow_pipe=True)) == 6


@pytest.mark.parametrize(
    ("command", "sentence"),
    [
        ("curl --password=SECRET nowhere; exit 3", "pipe:curl ... failed with status 3"),
        ("cat /dev/zero SECRET", "prints more than the 1,000,000 bytes"),
        ("", "shards hold no images|is truncated|damaged"),
    ],
)
def test_a_pipe_that_fails_is_a_sentence_without_its_command(tmp_path, cache, command, sentence):
    with pytest.raises(ValueError, match=sentence) as caught:
        open_source(f"pipe:{command}", cache=cache, allow_pipe=True)
    assert "SECRET" not in str(caught.value)
    assert not command or not list((tmp_path / "cache").rglob("*.tar"))


def test_a_pipe_that_prints_half_a_tar_is_named(tmp_path, cache):
    path = shard(tmp_path / "a.tar", count=4)
    with pytest.raises(ShardError, match="truncated"):
        open_source(f"pipe:head -c 3000 {path}", cache=cache, allow_pipe=True)


def test_packing_takes_a_pipe_where_that_is_allowed(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = shard(tmp_path / "a.tar", count=4)
    packed = pack(f"pipe:cat {path}", tmp_path / "out", Packing(allow_pipe=True), progress=False)
    assert packed.splits[""].images == 4


def test_training_data_take_a_pipe_where_that_is_allowed(tmp_path, cache):
    path = shard(tmp_path / "a.tar", count=4)
    data = Data(train=f"pipe:cat {path}", cache=cache)
    with pytest.raises(ValueError, match="allow_pipe=true"):
        open_train_and_val(data)
    train, val = open_train_and_val(data.model_copy(update={"allow_pipe": True}))
    assert len(train) == 4 and val is None
