"""What tests share: a few real images on disk, and shape checks of every annotated signature."""

import importlib
import importlib.util
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jaxtyping
import numpy as np
import pytest
from jaxtyping import install_import_hook
from PIL import Image

import tests.typecheck  # noqa: F401  (the hook below finds it by name)

# Before the first import of raymask: from here on every call is checked against its annotated shapes.
install_import_hook("raymask", "tests.typecheck.checked")

BEGUN = time.monotonic()


def needed(name: str) -> Any:
    """An optional package that tests are about. Without it they are skipped; where CI is set, they fail."""
    return importlib.import_module(name) if os.environ.get("CI") else pytest.importorskip(name)


def lacks(name: str) -> bool:
    """Whether tests that need a package in another process are to be skipped: never where CI is set."""
    return importlib.util.find_spec(name) is None and not os.environ.get("CI")


def write_photos(
    folder: Path, *, per_class: int, classes: tuple[str, ...] = ("cat", "dog"), seed: int = 0
) -> Path:
    """A folder of PNGs, `per_class` in a sub-folder for each class; the classes differ in colour."""
    rng = np.random.default_rng(seed)
    for number, name in enumerate(classes):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for index in range(per_class):
            noise = rng.integers(0, 128, (40 + index % 3, 48, 3))
            noise[:, :, number % 3] += 100
            Image.fromarray(noise.astype(np.uint8)).save(folder / name / f"{index:03d}.png")
    return folder


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--budget", type=float, help="seconds after which no further slow test begins")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Slow tests come last, in their order."""
    items.sort(key=_is_slow)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skips, and counts as skipped, the slow tests for which no time is left."""
    budget = item.config.getoption("--budget")
    if budget is not None and _is_slow(item) and time.monotonic() - BEGUN > budget:
        pytest.skip(f"the budget of {budget:g} seconds is used up")


def _is_slow(item: pytest.Item) -> bool:
    return item.get_closest_marker("slow") is not None


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `train` (24 images) and `val` (8 images) of two classes."""
    folder = tmp_path_factory.mktemp("photos")
    write_photos(folder / "train", per_class=12)
    write_photos(folder / "val", per_class=4, seed=1)
    return folder


@pytest.fixture(autouse=True)
def _unchecked_where_compiled(request: pytest.FixtureRequest) -> Iterator[None]:
    """torch.compile cannot trace the checks: tests that name it run without them."""
    jaxtyping.config.update("jaxtyping_disable", "compile" in request.node.name)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)
