"""Which tests run where: GPU tests need a GPU; slow ones come last, and only while there is time."""

import time

import pytest
import torch


def pytest_addoption(parser):
    parser.addoption("--budget", type=float, default=None, help="seconds after which no slow test starts")


def pytest_configure(config):
    config.started = time.monotonic()


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: "slow" in item.keywords)  # stable: the order within each part stays
    for item in items:
        if "gpu" in item.keywords and not torch.cuda.is_available():
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


def pytest_runtest_setup(item):
    budget = item.config.getoption("--budget")
    if budget and "slow" in item.keywords and time.monotonic() - item.config.started > budget:
        pytest.skip(f"slow, and the {budget:.0f} s of --budget are over")
