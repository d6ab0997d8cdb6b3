"""What the pages refer to exists: files, commands, targets, settings."""

import re
import shlex
from pathlib import Path

import pytest

from raymask import presets
from raymask.cli import app
from raymask.config import load

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
VERBS = {command.name or command.callback.__name__ for command in app.registered_commands}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
        assert target.startswith("https://") or (page.parent / target).exists(), target


def _commands(page: Path) -> list[list[str]]:
    text = re.sub(r"\\\n *", " ", page.read_text())
    blocks = re.findall(r"```sh\n(.*?)```", text, re.S) + re.findall(r"^ {4}.*$", text, re.M)
    lines = [line.split("#")[0].strip() for block in blocks for line in block.splitlines()]
    return [shlex.split(line) for line in lines if line.startswith(("raymask ", "make "))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_exist(page):
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.M))
    for program, verb, *_ in _commands(page):
        assert verb in (VERBS if program == "raymask" else targets), f"{program} {verb}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_training_commands_have_presets_and_settings_that_exist(page):
    for _, verb, *words in _commands(page):
        if verb == "train":
            preset, *changes = words
            assert preset.removesuffix(presets.LAPTOP) in presets.names()
            load(preset, changes)


def test_the_readme_names_every_room():
    readme = (ROOT / "README.md").read_text()
    for room in ("pipelines", "raymask", "tests", "docs"):
        assert f"`{room}/`" in readme


def test_the_pages_speak_to_an_outside_reader():
    for page in PAGES:
        assert not re.search(r"/(work|root|tmp)/", page.read_text()), page.name
