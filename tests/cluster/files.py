"""The files of cluster/, and every command line of raymask in them."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
CLUSTER = ROOT / "cluster"
KUBERNETES = sorted((CLUSTER / "kuberay").glob("*.yaml"))
RAY_UP = [CLUSTER / "aws.yaml", CLUSTER / "gcp.yaml"]
SLURM = CLUSTER / "slurm" / "raymask.sbatch"
DOCKERFILE = CLUSTER / "Dockerfile"
PAGES = [CLUSTER / "README.md", ROOT / "docs" / "jobs.md"]


def documents(path: Path) -> list[dict[str, Any]]:
    """The documents of a YAML file; a key that is given twice is an error, as for Kubernetes."""
    return list(yaml.load_all(path.read_text(), _Unique))


class _Unique(yaml.SafeLoader):
    """Refuses a mapping that names a key twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        keys = [self.construct_object(key, deep=deep) for key, _ in node.value]  # type: ignore[no-untyped-call]
        assert len(keys) == len(set(keys)), f"a key is given twice in {keys}"
        return super().construct_mapping(node, deep)


def commands(text: str) -> Iterator[list[str]]:
    """The words after `raymask` of each command line in a text: blocks of pages, entrypoints, scripts."""
    joined = re.sub(r"\\\n\s*", " ", text)
    for line in joined.splitlines():
        found = re.search(
            r"(?:^|\s)(?:python -m )?raymask (train|tune|submit|status|stop|doctor|resume)\b.*", line
        )
        if (
            found
            and not line.lstrip().startswith("#")
            and "`" not in line
            and "${" not in line
            and "$(" not in line
        ):
            yield shlex.split(found.group().strip().removeprefix("python -m "), comments=True)[1:]


def shell_blocks(page: Path) -> Iterator[str]:
    """The shell parts of a page."""
    yield from re.findall(r"```sh\n(.*?)```", page.read_text(), re.S)


def placeholders(path: Path) -> set[str]:
    """What a user has to fill in."""
    return set(re.findall(r"REPLACE-[A-Z-]*[A-Z]", path.read_text()))
