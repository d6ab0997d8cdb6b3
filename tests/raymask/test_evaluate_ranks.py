"""Several ranks evaluate as one process does: the same numbers, by as many forwards on each."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from raymask.classifier import classifier
from raymask.config import Config, load
from raymask.evaluate import evaluate, open_evaluation
from tests.raymask.test_bad_ranks import two_ranks
from tests.raymask.tiny_run import RECIPE, pictures

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]  # starts two processes

# 24 images in the bank and 12 queries: shares that are uneven, and a rank that has nothing to do.
CASES = {
    "uneven": ("evaluate.batch=5",),
    "idle": ("evaluate.batch=50",),
    "linear": ("evaluate.batch=5", "evaluate.linear=true"),
    "views": ("evaluate.batch=7", "evaluate.linear=true", "evaluate.linear_views=2"),
    "label_free": (
        "evaluate.batch=4",
        "evaluate.label_free=true",
        "evaluate.lidar_images=10",
        "evaluate.lidar_views=3",
    ),
    "bad": ("evaluate.batch=5", "data.max_bad_fraction=0.3"),
}
SHARDED = "uneven"  # also with weights that every forward gathers from all ranks

SCRIPT = """
import json, sys
from pathlib import Path
import torch
from torch.distributed.fsdp import fully_shard
from raymask.classifier import classifier
from raymask.evaluate import evaluate, open_evaluation
from raymask.world import from_environment, joined
from tests.raymask.test_evaluate_ranks import CASES, SHARDED, config_of

folder, world, cpu = Path(sys.argv[1]), from_environment(), torch.device("cpu")
results, forwards, said = {}, {}, None

def measure(name, backbone, config):
    forwards[name] = 0
    def count(*given):
        forwards[name] += 1
    backbone.register_forward_hook(count)
    own = classifier(backbone, 3, seed=1)
    results[name] = evaluate(backbone, open_evaluation(config), world=world, final=True, classifier=own)

with joined(world, device=cpu):
    for name in CASES:
        config = config_of(folder, name)
        measure(name, config.backbone.build(seed=3), config)
    config = config_of(folder, SHARDED)
    backbone = config.backbone.build(seed=3)
    fully_shard(backbone, mesh=torch.distributed.init_device_mesh("cpu", (2,)))
    measure("sharded", backbone, config)
    try:
        config = config_of(folder, "bad", "data.max_bad_fraction=0.01")
        measure("refused", config.backbone.build(seed=3), config)
    except ValueError as error:
        said = str(error)
(folder / f"found_{world.rank}.json").write_text(json.dumps([results, forwards, said]))
"""


def config_of(folder: Path, case: str, *changes: str) -> Config:
    """The config of a case; in `bad`, each rank meets images of its own that cannot be used."""
    data = folder / ("broken" if case == "bad" else "pictures")
    return load(str(folder / "tiny.yaml"), [f"data={data}", *CASES[case], *changes])


def noise(folder: Path) -> None:
    """24 and 12 pictures of three classes that look alike, so that no accuracy is all or nothing."""
    rng = np.random.default_rng(1)
    for file in sorted(pictures(folder).rglob("*.png")):
        Image.fromarray(rng.integers(0, 256, (20, 24, 3), np.uint8)).save(file)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ranks")
    (folder / "tiny.yaml").write_text(RECIPE)
    noise(folder / "pictures")
    noise(folder / "broken")
    for name in ("train/dark/train0", "train/red/train2", "val/light/val1", "val/red/val3"):
        (folder / "broken" / f"{name}.png").write_bytes(b"no image")
    (folder / "script.py").write_text(SCRIPT)
    for code, said in two_ranks("script.py", str(folder), folder=folder):
        assert code == 0, said
    return folder


@pytest.fixture(scope="module")
def found(folder: Path) -> list[list]:
    return [json.loads((folder / f"found_{rank}.json").read_text()) for rank in range(2)]


@pytest.mark.parametrize("case", [*CASES, "sharded"])
def test_two_ranks_give_the_numbers_of_one_process(folder: Path, found: list[list], case: str):
    config = config_of(folder, SHARDED if case == "sharded" else case)
    backbone = config.backbone.build(seed=3)
    own = classifier(backbone, 3, seed=1)
    alone = evaluate(backbone, open_evaluation(config), final=True, classifier=own)
    for results, _, _ in found:
        assert list(results[case]) == list(alone)
        for name, value in alone.items():
            exact = "knn" in name or name.startswith("eval/top")
            assert results[case][name] == (value if exact else pytest.approx(value, abs=1e-6)), name
    assert found[0][0][case] == found[1][0][case], "every rank has the same numbers"
    assert 0 < alone["eval/knn5_top1"] < 100 and 0 < alone["eval/top1"] < 100


@pytest.mark.parametrize("case", [*CASES, "sharded"])
def test_each_rank_makes_as_many_forwards(found: list[list], case: str):
    assert found[0][1][case] == found[1][1][case]


def test_bad_images_of_all_ranks_count_towards_one_limit_with_one_sentence(found: list[list]):
    assert found[0][2] == found[1][2]
    assert found[0][2].startswith("2 of 24 images cannot be used (2 not an image"), "each rank met one"
