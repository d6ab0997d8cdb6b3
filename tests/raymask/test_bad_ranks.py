"""Several ranks tell each other about bad images: one count, one limit, one sentence."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines.badlog import log_of_rank, read_bad
from pipelines.data import Data
from pipelines.loader import Loader
from tests.conftest import write_photos
from tests.pipelines.pictures import lines, memory
from tests.pipelines.test_loader import SMALL
from tests.raymask.tiny_run import RECIPE

ROOT = Path(__file__).parents[2]
BROKEN = {13: b"", 8: b"no image", 7: b"", 20: b""}  # each rank meets two of them in the first epoch
LOG = "bad_samples.jsonl"

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]  # each starts two processes, some of them twice

# Runs in each of two processes: {name of a run: where it stopped, what it said, what it counted}.
SCRIPT = """
import json, sys
from pathlib import Path
import torch
from pipelines.data import Data
from pipelines.loader import Loader
from raymask.bad import agree
from raymask.world import from_environment, joined
from tests.pipelines.pictures import memory
from tests.pipelines.test_loader import SMALL
from tests.raymask.test_bad_ranks import BROKEN, LOG

def train(folder, *, allowed, steps, start=0):
    settings = Data(crops=SMALL, threads=1, max_bad_fraction=allowed / 24)
    loader = Loader(settings, memory(24, broken=BROKEN), batch=4, seed=0, rank=world.rank, world=world.size,
                    start=start, steps=steps, bad_log=folder / LOG)
    done, alone = start, 0
    try:
        agree(loader.bad, world=world, device=cpu)
        for batch in loader:
            done = batch.step + 1
            alone = max(alone, len(loader.bad.fresh()))
            if done % 2 == 0:
                agree(loader.bad, world=world, device=cpu)
        said = None
    except ValueError as error:
        said = str(error)
    loader.close()
    return {"stopped": done, "said": said, "counts": loader.bad.counts(), "alone": alone}

folder, world, cpu = Path(sys.argv[1]), from_environment(), torch.device("cpu")
with joined(world, device=cpu):
    found = {
        "limited": train(folder / "limited", allowed=3, steps=12),
        "resumed": train(folder / "limited", allowed=3, steps=12, start=4),
        "allowed": train(folder / "allowed", allowed=4, steps=24),
        "again": train(folder / "allowed", allowed=4, steps=24, start=12),
    }
(folder / f"found_{world.rank}.json").write_text(json.dumps(found))
"""


def two_ranks(*command: str, folder: Path) -> list[tuple[int, str]]:
    """Runs a command as two ranks; their exit codes and what they said."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2", "OMP_NUM_THREADS": "1"}
    shared["PYTHONPATH"] = str(ROOT)
    outputs = [(folder / f"output_{rank}.txt").open("w+") for rank in range(2)]
    ranks = [
        subprocess.Popen(
            [sys.executable, *command],
            cwd=folder,
            env={**os.environ, **shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=outputs[rank],
            stderr=outputs[rank],
        )
        for rank in range(2)
    ]
    try:
        codes = [rank.wait(400) for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()
            rank.wait()
    said = []
    for output in outputs:
        output.seek(0)
        said.append(output.read())
        output.close()
    return list(zip(codes, said))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where two ranks have run."""
    folder = tmp_path_factory.mktemp("ranks")
    (folder / "script.py").write_text(SCRIPT)
    for code, said in two_ranks("script.py", str(folder), folder=folder):
        assert code == 0, said
    return folder


@pytest.fixture(scope="module")
def found(folder: Path) -> list[dict]:
    """What each of the two ranks has found."""
    return [json.loads((folder / f"found_{rank}.json").read_text()) for rank in range(2)]


def test_the_limit_is_on_the_sum_and_stops_both_ranks_at_one_step_with_one_sentence(found):
    one, two = (rank["limited"] for rank in found)
    assert one["said"] == two["said"] and one["stopped"] == two["stopped"] <= 6
    assert one["said"].startswith("4 of 24 images cannot be used (1 not an image, 3 zero bytes")
    assert max(one["alone"], two["alone"]) <= 2, "no rank has met too many by itself"


def test_a_resume_begins_with_what_all_ranks_have_named(found):
    for rank in found:
        assert rank["resumed"]["stopped"] == 4 and rank["resumed"]["said"] == rank["limited"]["said"]


def test_an_image_that_both_ranks_meet_counts_once(found):
    for rank in found:
        for run in ("allowed", "again"):
            assert rank[run]["said"] is None and rank[run]["stopped"] == 24
            assert rank[run]["counts"] == {"not an image": 1, "zero bytes": 3}


def test_each_rank_names_in_its_own_file_what_it_met(folder, found):
    log = folder / "allowed" / LOG
    parts = [[json.loads(line)["sample"] for line in lines(log_of_rank(log, rank))] for rank in range(2)]
    assert all(parts) and sorted({*parts[0], *parts[1]}) == sorted(BROKEN)
    assert all(len(set(part)) == len(part) for part in parts)
    assert set(read_bad(log)) == set(BROKEN)


def test_one_process_goes_on_with_what_two_have_named(folder, found):
    loader = Loader(
        Data(crops=SMALL, threads=0),
        memory(24, broken=BROKEN),
        batch=4,
        seed=0,
        steps=1,
        bad_log=folder / "allowed" / LOG,
    )
    assert loader.bad.counts() == {"not an image": 1, "zero bytes": 3}


def test_a_run_of_two_processes_ends_with_one_sentence_from_both_and_can_go_on_with_a_higher_limit(
    tmp_path: Path,
):
    data = write_photos(tmp_path / "photos", per_class=12)
    for name in ("cat/000", "cat/007", "dog/003", "dog/011"):
        (data / f"{name}.png").write_bytes(b"no image")
    (tmp_path / "tiny.yaml").write_text(RECIPE)
    settings = (f"data.train={data}", "train.log_steps=1", "run.name=x")
    settings += ("data.max_bad_fraction=0.1", "evaluate.every_images=null")
    ended = two_ranks("-m", "raymask", "train", "tiny.yaml", *settings, folder=tmp_path)
    assert [code for code, _ in ended] == [2, 2], ended
    sentences = [said[said.index("4 of 24 images cannot be used") :].strip() for _, said in ended]
    assert sentences[0] == sentences[1]
    run = tmp_path / "runs" / "x"
    assert len(read_bad(run / LOG)) == 4
    ended = two_ranks("-m", "raymask", "resume", str(run), "data.max_bad_fraction=0.2", folder=tmp_path)
    assert [code for code, _ in ended] == [0, 0], ended
    assert "unreadable images are replaced by others" in (run / "train.log").read_text()


def test_what_only_the_first_process_meets_when_it_evaluates_ends_both_with_its_sentence(tmp_path: Path):
    data = write_photos(tmp_path / "photos" / "train", per_class=12).parent
    write_photos(data / "val", per_class=4)
    for name in ("000", "001", "002"):
        (data / "val" / "cat" / f"{name}.png").write_bytes(b"no image")
    (tmp_path / "tiny.yaml").write_text(RECIPE)
    (one, said), (two, heard) = two_ranks(
        "-m", "raymask", "train", "tiny.yaml", f"data={data}", folder=tmp_path
    )
    assert (one, two) == (2, 2)
    for words in (said, heard):
        assert "3 of 8 images cannot be used" in words
