"""Every command line of raymask in cluster/ and its pages would be accepted; every shell part is sound."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from typer.main import get_command

from raymask.cli import app
from raymask.config import load
from raymask.distributed.job_command import command
from tests.cluster.files import (
    CLUSTER,
    DOCKERFILE,
    KUBERNETES,
    PAGES,
    RAY_UP,
    ROOT,
    SLURM,
    commands,
    documents,
    placeholders,
    shell_blocks,
)

PROGRAM = get_command(app)
ON_PAGES = [(page.name, words) for page in PAGES for block in shell_blocks(page) for words in commands(block)]
IN_FILES = [
    (path.name, words)
    for path in KUBERNETES
    for document in documents(path)
    for words in commands(document["spec"].get("entrypoint", ""))
]
EVERY = ON_PAGES + IN_FILES


def check(words: list[str], here: Path) -> None:
    """Raises whatever raymask would refuse the command with, short of looking at data and clusters."""
    verb, *rest = words
    given = PROGRAM.commands[verb].make_context(verb, list(rest)).params  # type: ignore[attr-defined]
    if verb == "train":
        load(given["preset"], given["changes"] or [])
    if verb == "submit":
        sent = command(given["verb"], given["arguments"] or [], here=here)
        check(list(sent.words[3:]), here)


@pytest.mark.parametrize(("where", "words"), EVERY, ids=[f"{w} {' '.join(c[:3])}" for w, c in EVERY])
def test_the_command_is_accepted(where: str, words: list[str], tmp_path: Path):
    check(words, tmp_path)


def test_commands_are_found_where_there_are_some():
    verbs = [words[0] for _, words in ON_PAGES]
    assert {"submit", "status", "stop", "doctor", "train"} <= set(verbs) and len(verbs) >= 10
    assert [words[:2] for _, words in IN_FILES] == [["train", "dino-random-mask"]]


WRONG = {
    "an unknown preset": ["train", "dino-random-maks", "data=/a"],
    "an unknown key": ["submit", "train", "dino", "data=/a", "run.root=/b", "cluster.cpu=3"],
    "an unknown option": ["submit", "train", "dino", "data=/a", "run.root=/b", "--detached"],
    "an unknown space": ["submit", "tune", "mask_ration", "preset=dino", "budget=10", "root=/b"],
    "a wrong value": ["train", "dino", "workers=8:2"],
}


@pytest.mark.parametrize("words", WRONG.values(), ids=WRONG)
def test_a_planted_mistake_is_found(words: list[str], tmp_path: Path):
    with pytest.raises(Exception, match=r"did you mean|unknown|workers|[Nn]o such option"):
        check(words, tmp_path)


def test_what_sbatch_is_given_is_what_train_takes():
    lines = [line for block in shell_blocks(CLUSTER / "README.md") for line in block.splitlines()]
    (line,) = [line for line in lines if line.startswith("sbatch ")]
    script, preset, *changes = [word for word in shlex.split(line)[1:] if not word.startswith("--")]
    assert ROOT / script == SLURM
    load(preset, changes)
    # As the script puts its own settings before the user's.
    own = re.search(r'raymask train "\$preset" (.*?)"\$@"', SLURM.read_text().replace("\\\n", ""), re.S)
    assert own is not None
    plain = [
        re.sub(r"\$.*", "4" if word.startswith("workers") else "a", word) for word in _words(own.group(1))
    ]
    load(preset, [word for word in plain if "=" in word] + changes)


def _words(text: str) -> list[str]:
    """The words of a line whose arithmetic holds spaces."""
    return shlex.split(re.sub(r"\$\(\(.*?\)\)", "$", text))


@pytest.mark.parametrize("path", [SLURM, *PAGES, *RAY_UP], ids=lambda path: path.name)
def test_shell_parts_are_sound(path: Path):
    if path.suffix == ".sbatch":
        scripts = [path.read_text()]
    elif path.suffix == ".yaml":
        config = documents(path)[0]
        keys = (
            "initialization_commands",
            "setup_commands",
            "head_start_ray_commands",
            "worker_start_ray_commands",
        )
        scripts = [line for key in keys for line in config[key]]
    else:
        scripts = list(shell_blocks(path))
    assert scripts
    for script in scripts:
        subprocess.run(["bash", "-n"], input=script, text=True, check=True)
        program = Path(sys.executable).parent / "shellcheck"
        # What a page or a launcher's line may have: ~ and $ that mean the other machine's.
        hidden = [] if path == SLURM else ["--exclude=SC2154,SC1090"]
        done = subprocess.run(
            [program, "--shell=bash", *hidden, "-"], input=script, text=True, capture_output=True
        )
        assert done.returncode == 0, f"{script}\n{done.stdout}"


def test_a_planted_mistake_in_a_script_is_found():
    broken = SLURM.read_text().replace('"$SLURM_JOB_NODELIST"', "$SLURM_JOB_NODELIST")
    program = Path(sys.executable).parent / "shellcheck"
    assert subprocess.run(
        [program, "--shell=bash", "-"], input=broken, text=True, capture_output=True
    ).returncode


def test_the_slurm_script_never_ends_the_ray_of_others():
    code = "\n".join(line for line in SLURM.read_text().splitlines() if not line.lstrip().startswith("#"))
    assert "ray stop" not in code and "symmetric-run" not in code and "pkill" not in code
    assert "--requeue" in SLURM.read_text() and "token_hex" in code


def test_every_placeholder_is_told_of():
    page = (CLUSTER / "README.md").read_text()
    assert "REPLACE" in page
    for path in [*KUBERNETES, *RAY_UP]:
        for found in placeholders(path) - {"REPLACE-REGISTRY"}:
            comments = [line for line in path.read_text().splitlines() if line.lstrip().startswith("#")]
            assert found in " ".join(comments) or "NFS server" in " ".join(comments), found


@pytest.mark.parametrize(
    "path", [*KUBERNETES, *RAY_UP, DOCKERFILE, SLURM, *PAGES], ids=lambda path: path.name
)
def test_the_file_speaks_to_an_outside_reader_and_holds_no_secret(path: Path):
    text = path.read_text()
    assert not re.search(r"/(work|root)/", text)
    assert not re.search(r"\b[0-9a-f]{32,}\b|AKIA[0-9A-Z]{16}", text)


@pytest.mark.parametrize("page", [CLUSTER / "README.md"], ids=lambda page: page.name)
def test_links_and_files_that_the_page_names_exist(page: Path):
    text = page.read_text()
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        assert target.startswith("https://") or (page.parent / target).exists(), target
    for named in re.findall(r"(?:cluster|tests)/[\w./-]+\w", text):
        assert (ROOT / named).exists(), named
