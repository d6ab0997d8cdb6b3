"""Bad samples: named once by one writer a file, counted over ranks and over resumes, held to one limit."""

import json
import os
from pathlib import Path

import pytest

from pipelines.bad import BadSamples
from pipelines.badlog import append_bad, log_of_rank, read_bad
from pipelines.data import Data
from pipelines.loader import Loader
from pipelines.names import shown
from tests.pipelines.pictures import Memory, lines, memory
from tests.pipelines.test_loader import SMALL

WEIRD = "ca\x1b[2Jt\n/\u202egpj\udcff.jpg"


def write(log: Path, sample: int, cause: str = "zero bytes") -> None:
    append_bad(log, sample=sample, key=f"{sample}.jpg", shard="shard", cause=cause, replaced_by=sample + 1)


def test_the_lines_of_all_ranks_are_read_as_one(tmp_path):
    log = tmp_path / "run" / "bad_samples.jsonl"
    write(log, 1)
    write(log_of_rank(log, 0), 2, "broken image")
    write(log_of_rank(log, 12), 1)
    write(log_of_rank(log, 3), 7)
    assert sorted(path.name for path in log.parent.iterdir()) == [
        "bad_samples.jsonl",
        "bad_samples.rank12.jsonl",
        "bad_samples.rank3.jsonl",
    ]
    assert read_bad(log) == {1: "zero bytes", 2: "broken image", 7: "zero bytes"}
    assert read_bad(tmp_path / "none" / "bad_samples.jsonl") == {}


@pytest.mark.parametrize("torn", [1, 20, 60])
def test_a_torn_line_is_passed_over_and_the_next_one_begins_below_it(tmp_path, torn):
    log = tmp_path / "bad_samples.jsonl"
    write(log, 1)
    write(log, 2)
    os.truncate(log, log.stat().st_size - torn)
    whole = read_bad(log)
    assert set(whole) == ({1, 2} if torn == 1 else {1})  # only the end of the line was lost
    write(log, 3)
    write(log, 4)
    assert read_bad(log) == {**whole, 3: "zero bytes", 4: "zero bytes"}


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"\xff\xfe\x00",
        b"[1, 2]",
        b"7",
        b'{"cause": "zero bytes"}',
        b'{"sample": "1", "cause": "x"}',
        b'{"sample": true, "cause": "x"}',
        b'{"sample": -1, "cause": "x"}',
        b'{"sample": 1e400, "cause": "x"}',
        b'{"sample": NaN, "cause": "x"}',
        b'{"sample": 123456789012345678901234567890, "cause": "x"}',
        b'{"sample": 1, "cause": ["x"]}',
        b'{"sample": ' + b"1" * 5000 + b"}",
        b"[" * 100_000,
    ],
)
def test_what_is_no_line_of_ours_is_passed_over(tmp_path, line):
    log = tmp_path / "bad_samples.jsonl"
    write(log, 1)
    log.write_bytes(log.read_bytes() + line + b"\n")
    write(log, 2)
    assert read_bad(log) == {1: "zero bytes", 2: "zero bytes"}


def test_names_with_control_characters_are_escaped_in_the_log_and_in_messages(tmp_path):
    class Weird(Memory):
        def key(self, sample: int) -> str:
            return WEIRD

    log = tmp_path / "bad_samples.jsonl"
    source = Weird(memory(6, broken={1: b"", 2: b"", 3: b"x"}).files)
    loader = Loader(
        Data(crops=SMALL, threads=0, max_bad_fraction=0.2), source, batch=2, seed=0, steps=9, bad_log=log
    )
    with pytest.raises(ValueError, match="3 of 6 images") as stopped:
        list(loader)
    assert str(stopped.value).isprintable() and r"ca\x1b[2Jt\n/\u202egpj\udcff.jpg in" in str(stopped.value)
    text = log.read_bytes().decode("ascii")
    assert text.replace("\n", "").isprintable() and len(lines(log)) == 3
    assert {json.loads(line)["key"] for line in lines(log)} == {WEIRD}


def test_a_name_of_any_length_gives_a_short_message_and_a_line_that_is_read_again(tmp_path):
    long = "\U0001f600" * 1_000_000
    assert len(shown(long)) < 210
    log = tmp_path / "bad_samples.jsonl"
    append_bad(log, sample=5, key=long, shard=long, cause="zero bytes")
    assert read_bad(log) == {5: "zero bytes"}


def test_a_resumed_run_counts_what_earlier_ones_have_named(tmp_path):
    log = tmp_path / "bad_samples.jsonl"
    source = memory(23, broken=dict.fromkeys((2, 5, 9), b""))
    settings = Data(crops=SMALL, threads=0, max_bad_fraction=0.1)  # three
    list(Loader(settings, source, batch=5, seed=0, steps=5, bad_log=log))
    more = memory(23, broken=dict.fromkeys((2, 5, 9, 20), b""))
    resumed = Loader(settings, more, batch=5, seed=0, start=5, steps=10, bad_log=log)
    assert resumed.bad.counts() == {"zero bytes": 3} and resumed.take_timings()["bad"] == 3
    with pytest.raises(ValueError, match=r"4 of 23 images cannot be used \(4 zero bytes"):
        list(resumed)
    assert len(lines(log)) == 4, "the one that was too many is named as well"


def test_lines_of_samples_that_the_data_do_not_have_count_for_nothing(tmp_path):
    log = tmp_path / "bad_samples.jsonl"
    write(log, 1000)
    assert len(BadSamples(memory(23), limit=0.1, log=log)) == 0


def test_a_log_that_cannot_be_written_ends_the_run_with_its_name(tmp_path):
    (tmp_path / "file").touch()
    log = tmp_path / "file" / "bad_samples.jsonl"
    with pytest.raises(ValueError, match=r"cannot write .*bad_samples\.jsonl"):
        list(
            Loader(
                Data(crops=SMALL, threads=0),
                memory(23, broken={3: b""}),
                batch=5,
                seed=0,
                steps=5,
                bad_log=log,
            )
        )


def test_in_a_world_of_several_ranks_only_what_is_agreed_on_counts(tmp_path):
    bad = BadSamples(memory(23), limit=0.05, log=tmp_path / "bad_samples.jsonl", rank=1, world=2)  # two
    for sample in (3, 4, 5):
        bad.add(sample, "zero bytes")
    bad.check()
    assert len(bad) == 3 and 4 in bad and bad.fresh() == dict.fromkeys((3, 4, 5), "zero bytes")
    bad.agree({3: "zero bytes", 9: "broken image"})
    bad.check()
    assert len(bad) == 4 and set(bad.fresh()) == {4, 5}
    bad.name(9, 10)  # the rank that met it does
    assert not read_bad(tmp_path / "bad_samples.jsonl")
    bad.agree(bad.fresh())
    with pytest.raises(
        ValueError, match=r"4 of 23 .*\(1 broken image, 3 zero bytes; one of them is 0003.jpg"
    ):
        bad.check()
