"""Jobs on a real cluster with token authentication, by the command line a user has."""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from raymask.config import load, to_tree
from tests.conftest import write_photos
from tests.distributed.head import BIN, Head, started

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Head]:
    """One cluster for all tests of this file."""
    with started(tmp_path_factory.mktemp("head")) as running:
        yield running


@dataclass
class Project:
    """A user's working directory, with photos and a place for runs outside it."""

    folder: Path
    photos: Path
    runs: Path
    head: Head

    def call(self, *words: object, **environment: str) -> subprocess.CompletedProcess[str]:
        """A command line in the project, by somebody who knows the token unless told otherwise."""
        return subprocess.run(
            [sys.executable, "-m", "raymask", *map(str, words)],
            cwd=self.folder,
            env=self.head.environment(**environment),
            capture_output=True,
            text=True,
            timeout=200,
        )

    def settings(self, name: str, *, steps: int, workers: str = "null") -> list[str]:
        """A tiny run of that many steps; without workers in the job's own process."""
        where = [f"data={self.photos}", f"run.root={self.runs}", f"run.name={name}"]
        return [*where, f"workers={workers}", f"train.steps={steps}", "evaluate.every_images=1000"]

    def lines(self, name: str) -> list[dict]:
        """What a run wrote into metrics.jsonl."""
        path = self.runs / name / "metrics.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def toy_recipe() -> str:
    """What debug=true makes of a preset, as a config file of its own."""
    tree = to_tree(load("dino-laptop", ["debug=true"]))
    del tree["run"]
    return yaml.safe_dump({**tree, "debug": False})


@pytest.fixture
def project(head: Head, tmp_path: Path) -> Project:
    folder = tmp_path / "project"
    (folder / "big").mkdir(parents=True)
    (folder / "big" / "data.bin").write_bytes(b"0" * 1000)
    (folder / ".rayignore").write_text("big/\n")
    (folder / "recipe.yaml").write_text(toy_recipe())
    return Project(folder, write_photos(tmp_path / "photos", per_class=12), tmp_path / "runs", head)


def until(true: Callable[[], object], *, seconds: float = 200) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.2)


def test_without_the_clusters_own_token_nothing_is_sent(project: Project):
    missing = project.call("status", "night", RAY_AUTH_TOKEN="")
    assert missing.returncode == 2 and "RAY_AUTH_TOKEN is set and empty" in missing.stderr
    (project.folder / "token").write_text("f" * 64)
    wrong = project.call("status", "night", RAY_AUTH_TOKEN="e" * 64)
    assert wrong.returncode == 2
    assert "refuses the token in RAY_AUTH_TOKEN: it has expired or is another cluster's" in wrong.stderr
    off = project.call("status", "night", RAY_AUTH_MODE="disabled")
    assert off.returncode == 2 and "asks for a token: RAY_AUTH_MODE=disabled keeps it" in off.stderr
    for refused in (missing, wrong, off):
        assert len(refused.stderr.splitlines()) == 1 and not refused.stdout


def test_a_jobs_own_refusal_comes_back_with_its_exit_code(project: Project):
    done = project.call(
        "submit", "train", "recipe.yaml", *project.settings("refused", steps=2)[1:], "data=/none"
    )
    assert done.returncode == 2, done.stderr
    assert "raymask: there is no data set at /none: the path does not exist" in done.stdout
    assert "failed" in done.stderr and "exit code 2" in done.stderr
    assert not (project.runs / "refused").exists()


def test_a_stopped_job_has_a_checkpoint_and_the_same_command_goes_on(project: Project):
    command = [
        "submit",
        "train",
        "recipe.yaml",
        *project.settings("night", steps=20_000),
        "--detach",
    ]
    sent = project.call(*command)
    assert sent.returncode == 0, sent.stderr
    assert "sending 2 files" in sent.stderr and "job raymask-night-1: python -m raymask train" in sent.stderr
    until(lambda: project.lines("night"))
    again = project.call(*command)
    assert again.returncode == 2
    assert "run 'night' is on the cluster already, as job raymask-night-1" in again.stderr
    status = project.call("status", "night")
    assert status.returncode == 0 and "raymask-night-1  running" in status.stdout, status.stderr
    assert f"run   {project.runs / 'night'}" in status.stdout and "of 20,000" in status.stdout

    stopped = project.call("stop", "night")
    assert stopped.returncode == 0 and "raymask-night-1  stopped" in stopped.stderr, stopped.stderr
    reached = project.lines("night")[-1]["step"]
    assert (project.runs / "night" / "checkpoints" / "last").read_text().strip().endswith(f"{reached:08d}")
    twice = project.call("stop", "night")
    assert twice.returncode == 2 and "has ended (stopped)" in twice.stderr

    on = project.call(*command)
    assert "job raymask-night-2" in on.stderr
    until(lambda: project.lines("night")[-1]["step"] > reached)
    assert project.call("stop", str(project.runs / "night")).returncode == 0
    steps = [line["step"] for line in project.lines("night") if "loss" in line]
    assert steps == list(range(1, len(steps) + 1))
    _holds_no_token(project, sent, status, stopped, on)


def test_a_search_that_is_stopped_keeps_its_trials_and_goes_on(project: Project):
    (project.folder / "recipe.yaml").write_text(toy_recipe().replace("threads: null", "threads: 1"))
    words = [f"preset={project.folder / 'recipe.yaml'}", f"data={project.photos}", f"root={project.runs}"]
    search = ["budget=80000", "trials=2", "checks=1", "metric=effective_rank", "name=search", "at_once=1"]
    command = ["submit", "tune", "mask_ratio", *words, *search, "--detach"]
    assert (sent := project.call(*command)).returncode == 0, sent.stderr
    first = project.runs / "search" / "trials" / "t000"
    until(lambda: (first / "metrics.jsonl").exists() and project.lines("search/trials/t000"))
    stopped = project.call("stop", "search")
    assert stopped.returncode == 0 and "raymask-search-1  stopped" in stopped.stderr, stopped.stderr
    saved = (first / "checkpoints" / "last").read_text().strip()
    assert int(saved.removeprefix("step_")) >= project.lines("search/trials/t000")[-1]["step"]
    known = json.loads((project.runs / "search" / "results.json").read_text())
    assert [trial["state"] for trial in known["trials"]] == ["running"]
    status = project.call("status", str(project.runs / "search"))
    assert "stopped" in status.stdout and "1 of 2 trials begun: 1 to go on with" in status.stdout

    reached = project.lines("search/trials/t000")[-1]["step"]
    assert "job raymask-search-2" in project.call(*command).stderr
    until(lambda: project.lines("search/trials/t000")[-1]["step"] > reached)
    assert project.call("stop", "search").returncode == 0


def _holds_no_token(project: Project, *said: subprocess.CompletedProcess[str]) -> None:
    """Neither what was printed, nor what the cluster tells of its jobs, nor any file of the run has it."""
    token = project.head.token
    told = subprocess.run(
        [sys.executable, "-c", _JOBS],
        env=project.head.environment(RAY_AUTH_MODE="token"),
        capture_output=True,
    )
    assert b"raymask-night-2" in told.stdout
    assert token.encode() not in told.stdout
    assert not [done for done in said if token in done.stdout + done.stderr]
    for path in project.runs.rglob("*"):
        assert not path.is_file() or token.encode() not in path.read_bytes(), path


_JOBS = """
from ray.job_submission import JobSubmissionClient
client = JobSubmissionClient()
for job in client.list_jobs():
    print(job, client.get_job_logs(job.submission_id) if job.submission_id else "")
"""


def test_doctor_compares_versions_and_says_what_each_node_has(project: Project):
    found = project.call("doctor", "--address", project.head.url)
    assert found.returncode == 0, found.stdout + found.stderr
    said = {line[7:22].strip(): line[22:] for line in found.stdout.splitlines() if line.startswith("ok")}
    assert said["cluster"] == f"{project.head.url}, by token" and said["ray"].startswith(
        "2.60.0 here and there"
    )
    assert said["nodes"] == "1 that live, 2 CPU and 0 GPU to give away"
    (node,) = [line for line in found.stdout.splitlines() if "node " in line[:12]]
    assert re.search(r"head, 2 CPU of \d+ cores, 0 GPU, \d+ GB, /dev/shm [\d.]+ GB, torch \S+$", node)


def test_stop_leaves_jobs_alone_that_raymask_has_not_sent(project: Project):
    environment = project.head.environment(RAY_AUTH_MODE="token")
    ray = [str(BIN / "ray"), "job"]
    sent = ["submit", "--no-wait", "--submission-id", "raymask-mine-1", "--", "sleep", "60"]
    subprocess.run([*ray, *sent], env=environment, check=True, capture_output=True)
    refused = project.call("stop", "mine")
    assert refused.returncode == 2 and "raymask has sent no job of that name" in refused.stderr
    state = subprocess.run(
        [*ray, "status", "raymask-mine-1"], env=environment, check=True, capture_output=True, text=True
    )
    assert "RUNNING" in state.stdout + state.stderr or "PENDING" in state.stdout + state.stderr
    subprocess.run([*ray, "stop", "raymask-mine-1"], env=environment, check=True, capture_output=True)


def test_plain_ray_job_submit_does_the_same_and_status_finds_it(project: Project):
    known = json.dumps({"raymask_run": "plain", "raymask_folder": str(project.runs / "plain")})
    environment = project.head.environment(RAY_AUTH_MODE="token", PATH=f"{BIN}:{os.environ['PATH']}")
    train = [
        "python",
        "-m",
        "raymask",
        "train",
        "recipe.yaml",
        *project.settings("plain", steps=2, workers="1"),
    ]
    done = subprocess.run(
        [
            "ray",
            "job",
            "submit",
            "--working-dir",
            ".",
            "--metadata-json",
            known,
            "--",
            *train,
            "run.resume=true",
        ],
        cwd=project.folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    status = project.call("status", "plain")
    assert "succeeded" in status.stdout and "step 2 of 2" in status.stdout, status.stderr
