"""The image's versions are the ones that the tests run with, and its file does what it says."""

import re
import tomllib
from importlib.metadata import version

from packaging.requirements import Requirement

from tests.cluster.files import CLUSTER, DOCKERFILE, KUBERNETES, ROOT, documents
from tests.cluster.schema import cluster_of

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
NEEDED = [Requirement(text) for text in PROJECT["dependencies"] + PROJECT["optional-dependencies"]["s3"]]


def pins() -> dict[str, str]:
    lines = (CLUSTER / "constraints.txt").read_text().splitlines()
    return dict(line.split("==") for line in lines if line and not line.startswith("#"))


def instructions() -> list[tuple[str, str]]:
    """The Dockerfile's instructions with their arguments, continued lines joined."""
    text = re.sub(r"^#.*\n", "", DOCKERFILE.read_text(), flags=re.M)
    lines = re.sub(r"\\\n\s*", " ", text).splitlines()
    return [(line.split()[0], line.split(maxsplit=1)[1]) for line in lines if line.strip()]


def test_every_dependency_is_pinned_to_a_version_that_the_project_takes():
    for needed in NEEDED:
        assert needed.specifier.contains(pins()[needed.name]), needed
    assert set(pins()) == {needed.name for needed in NEEDED}


def test_the_pins_are_what_these_tests_run_with_where_it_is_pinned_exactly():
    exact = {needed.name for needed in NEEDED if str(needed.specifier).startswith("==")}
    assert exact == {"ray"} and pins()["ray"] == version("ray")


def test_ray_and_python_are_the_same_everywhere():
    base = next(arguments for name, arguments in instructions() if name == "FROM")
    ray = pins()["ray"]
    assert re.fullmatch(rf"rayproject/ray:{re.escape(ray)}-py311-cpu", base)
    assert PROJECT["requires-python"] == ">=3.11"
    for path in KUBERNETES:
        for document in documents(path):
            if document["apiVersion"] == "ray.io/v1":
                assert cluster_of(document)["rayVersion"] == ray


def test_everybody_asks_for_the_image_of_this_version():
    tag = f"raymask:{PROJECT['version']}"
    for path in [*KUBERNETES, CLUSTER / "aws.yaml", CLUSTER / "gcp.yaml", CLUSTER / "README.md", DOCKERFILE]:
        found = set(re.findall(r"raymask:[\w.]+", path.read_text()))
        assert found <= {tag}, path.name


def test_the_dockerfile_copies_what_is_there_and_gives_it_to_rays_user():
    kinds = [name for name, _ in instructions()]
    assert kinds[0] == "FROM" and set(kinds) <= {"FROM", "ARG", "ENV", "WORKDIR", "COPY", "RUN"}
    copied = [arguments.split() for name, arguments in instructions() if name == "COPY"]
    for owner, *sources, _ in copied:
        assert owner == "--chown=ray:users"
        for source in sources:
            assert (ROOT / source).exists(), source
    for package in PROJECT["dependencies"]:
        assert not any(package in arguments for name, arguments in instructions() if name == "RUN")


def test_what_is_installed_is_bound_by_the_constraints_and_leaves_no_cache():
    runs = " ".join(arguments for name, arguments in instructions() if name == "RUN")
    installs = re.findall(r"pip install [^&]*", runs)
    assert len(installs) == 2 and all("--no-cache-dir" in line for line in installs)
    assert "--constraint constraints.txt" in installs[0] and "--no-deps ." in installs[1]
    assert "apt-get" not in runs and "sudo" not in runs


def test_a_job_gets_neither_secrets_nor_data_of_this_repository(tmp_path):
    from raymask.distributed.packaging import look

    (tmp_path / ".rayignore").write_text((ROOT / ".rayignore").read_text())
    kept = ["raymask/cli.py", "raymask/data/fashion-mnist/images.gz", "recipe.yaml", "tune_spaces/mine.py"]
    left = [".git/config", "runs/a/metrics.jsonl", "data/a.jpg", "shards/0.tar", "x/y.beton", ".env"]
    left += ["auth_token", "home/auth_token", "key.pem", "tests/a.py", ".venv/bin/python", "a/b.safetensors"]
    for name in kept + left:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    assert look(tmp_path).files == {*kept, ".rayignore"}
