"""What searches go by where there are no labels: LiDAR and the entropy of [CLS] attention."""

from math import exp, log

import numpy as np
import pytest
import torch

from raymask.config import change, load
from raymask.evaluate import evaluate, open_evaluation
from raymask.evaluate.health import LIDAR_RIDGE, attention_entropy, lidar
from tests.raymask.tiny_run import RECIPE, pictures


def slow_lidar(views: np.ndarray) -> float:
    """The formula as it is written, sum by sum, in float64."""
    images, copies, width = views.shape
    means = [sum(image) / copies for image in views]
    middle = sum(means) / images
    between, within = np.zeros((width, width)), LIDAR_RIDGE * np.eye(width)
    for image, mean in zip(views, means):
        between += np.outer(mean - middle, mean - middle) / images
        for view in image:
            within += np.outer(view - mean, view - mean) / (images * copies)
    values = np.linalg.eigvals(np.linalg.solve(within, between)).real.clip(0)  # those of W^-1/2 B W^-1/2
    return exp(-sum(v * log(v) for v in values / values.sum() if v > 0))


@pytest.mark.parametrize(("images", "copies", "width"), [(9, 4, 5), (4, 3, 6), (30, 2, 3)])
def test_lidar_is_its_formula(images: int, copies: int, width: int):
    rng = np.random.default_rng(images)
    scale = rng.uniform(0.1, 3, width)
    views = rng.normal(size=(images, 1, width)) * scale + rng.normal(size=(images, copies, width)) / scale
    assert lidar(torch.tensor(views)) == pytest.approx(slow_lidar(views), rel=1e-9)


def test_lidar_counts_the_directions_in_which_images_differ_more_than_their_views():
    draw = torch.Generator().manual_seed(0)
    noise = 0.1 * torch.randn(400, 8, 6, generator=draw)
    for useful in (1, 3, 6):
        images = torch.zeros(400, 1, 6)
        images[:, 0, :useful] = torch.randn(400, useful, generator=draw)
        assert lidar(images + noise) == pytest.approx(useful, rel=0.1)


def test_lidar_sees_no_rank_in_noise_that_rankme_would_count():
    """A strong direction in which views of one image differ as much as images do is worth little."""
    draw = torch.Generator().manual_seed(1)
    images = torch.zeros(300, 1, 4)
    images[:, 0, 0] = torch.randn(300, generator=draw)
    views = images + torch.randn(300, 10, 4, generator=draw) * torch.tensor([0.01, 5.0, 5.0, 5.0])
    assert lidar(views) < 1.1


def test_attention_entropy_is_its_formula_by_head():
    draw = torch.Generator().manual_seed(0)
    attention = torch.rand(2, 3, 7, generator=draw).double() * 0.1  # the rest goes to [CLS] itself
    found = attention_entropy(attention)
    for image in range(2):
        for head in range(3):
            row = (attention[image, head] / attention[image, head].sum()).tolist()
            assert found[image, head].item() == pytest.approx(-sum(p * log(p) for p in row), rel=1e-12)


def test_even_attention_has_all_the_entropy_and_one_patch_none():
    even, one = torch.full((1, 1, 16), 0.02), torch.zeros(1, 1, 16)
    one[0, 0, 5] = 0.7
    assert attention_entropy(even).item() == pytest.approx(log(16), rel=1e-6)
    assert attention_entropy(one).item() == pytest.approx(0, abs=1e-6)


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("label_free")
    (folder / "tiny.yaml").write_text(RECIPE)
    few = ("evaluate.lidar_images=8", "evaluate.lidar_views=3", "evaluate.batch=5")
    data = pictures(folder / "flat", classes=())
    return load(str(folder / "tiny.yaml"), [f"data={data}", "evaluate.label_free=true", *few])


def test_they_are_measured_without_labels_the_same_each_time_and_only_if_asked_for(config):
    backbone = config.backbone.build(seed=0)
    results = evaluate(backbone, open_evaluation(config))
    assert {"eval/lidar", "eval/attention_entropy", "eval/attention_entropy_share"} <= results.keys()
    heads = [results[f"eval/attention_entropy_head{number}"] for number in (1, 2)]
    assert results["eval/attention_entropy"] == pytest.approx(sum(heads) / 2)
    assert results["eval/attention_entropy_share"] == pytest.approx(sum(heads) / 2 / log(16))
    assert 1 <= results["eval/lidar"] <= 7
    assert evaluate(backbone, open_evaluation(config)) == results
    plain = evaluate(backbone, open_evaluation(change(config, ["evaluate.label_free=false"])))
    assert not [name for name in plain if "lidar" in name or "entropy" in name]
    assert plain.items() <= results.items(), "asking for more changes nothing of the rest"


def test_lidar_takes_the_views_of_each_image_together(config):
    """One view's crops are those of the linear probe; batches of another size give the same number."""
    backbone = config.backbone.build(seed=0)
    found = [
        evaluate(backbone, open_evaluation(change(config, [f"evaluate.batch={batch}"])))["eval/lidar"]
        for batch in (3, 8)
    ]
    assert found[0] == pytest.approx(found[1], rel=1e-4)


def test_a_backbone_without_class_token_has_no_attention_entropy_and_one_sentence_says_so(config):
    shape = (
        "{kind: convvit, image_size: 16, dims: [8, 16, 32], depths: [1, 1, 2], heads: 2, strides: [2, 2, 1]}"
    )
    conv = change(config, [f"backbone={shape}"])
    evaluation = open_evaluation(conv)
    assert (
        evaluation.remark
        == "no attention entropy: ConvViT has no class token whose attention could be measured"
    )
    results = evaluate(conv.backbone.build(seed=0), evaluation)
    assert "eval/lidar" in results and not [name for name in results if "entropy" in name]
    assert open_evaluation(config).remark is None
