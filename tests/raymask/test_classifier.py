"""The classifier that a method trains: what it gets right, during the run, after it, and in plain timm."""

import json
from pathlib import Path

import pytest
import timm
import torch

from raymask.classifier import Classifier, places
from raymask.config import load
from raymask.evaluate import evaluate_run, open_evaluation
from raymask.export import export, verify
from raymask.frozen import FrozenNetwork
from raymask.timm_names import heads_agree
from raymask.train import train
from raymask.trained import open_trained
from raymask.vit import Backbone
from tests.raymask.tiny_run import pictures

TINY = "patch_size: 4, dim: 32, depth: 2, heads: 2"
RECIPE = f"""
extends: kd-soft
data: {{threads: 1, repeats: 1, crops: {{global_crops: {{size: 16, randaugment: null}}}}}}
backbone: {{image_size: 16, {TINY}}}
method: {{teacher: {{name: deit_tiny_patch16_224, pretrained: false, {TINY}}}}}
optim: {{base_lr: 0.05, start_lr: 0.05}}
train: {{epochs: 2, global_batch: 12, log_steps: 2, precision: float32}}
evaluate: {{resize: 16, knn: [5], every_images: 24, batch: 5}}
"""
STUDENTS = ["deit_tiny_patch16_224", "deit_tiny_distilled_patch16_224", "vit_base_patch16_gap_224"]


def small_run(folder: Path, student: str) -> Path:
    """A run of four steps on pictures whose classes differ in colour, which is learned in them."""
    (folder / "kd.yaml").write_text(RECIPE)
    changes = [f"run.root={folder}", f"data={pictures(folder / 'pictures')}", f"backbone.name={student}"]
    return train(load(str(folder / "kd.yaml"), changes))


@pytest.fixture(scope="module", params=STUDENTS)
def run(request, tmp_path_factory) -> Path:
    return small_run(tmp_path_factory.mktemp("classifier"), request.param)


def test_an_image_is_right_where_its_label_comes_first_and_of_equals_the_lower_does():
    logits = torch.tensor([[0.1, 0.3, 0.2], [1.0, 1.0, 0.0], [1.0, 1.0, 0.0], [float("nan"), 1.0, 2.0]])
    assert places(logits, torch.tensor([0, 0, 1, 0])).tolist() == [2, 0, 1, 3]
    random = torch.randn(50, 7, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(50) % 7
    order = random.argsort(dim=1, descending=True)
    assert torch.equal(places(random, labels), (order == labels[:, None]).int().argmax(1))


def test_two_classifiers_answer_by_the_mean_of_their_logits():
    head = Classifier(4, 3, distilled=True)
    tokens = torch.randn(5, 9, 4)
    assert torch.allclose(head.answer(tokens), (head.cls(tokens[:, 0]) + head.dist(tokens[:, 1])) / 2)


def test_a_run_measures_its_classifier_as_plain_timm_would(run):
    """`eval/top1` is the paper's metric: here it is counted again, by timm's own forward of the export."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    measured = [line["eval/top1"] for line in lines if "eval/top1" in line]
    assert len(measured) == 3, "at the start, between, and at the end"
    vit = timm.create_model(f"local-dir:{export(run)}", pretrained=True).eval()
    queries = open_evaluation(open_trained(run).config).queries
    right = [(vit(b.images).argmax(1) == b.labels).float() for b in queries.batches()]
    assert measured[-1] == pytest.approx(100 * float(torch.cat(right).mean()))
    assert measured[0] < 50 < measured[-1], "what was learned, not what was there"
    assert lines[-1]["eval/top5"] == 100, "of three classes"
    assert f"step 4 evaluated: top1 {measured[-1]:.4g}  knn5_top1" in (run / "train.log").read_text()


def test_an_export_is_a_classifier_in_plain_timm_with_the_runs_logits_and_names(run):
    folder, trained = export(run), open_trained(run)
    vit = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    images = torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    assert (vit.num_classes, vit.pretrained_cfg["label_names"]) == (3, ["dark", "light", "red"])
    assert torch.allclose(vit(images), trained.classifier.answer(trained.backbone(images)[0]), atol=1e-5)
    assert hasattr(vit, "head_dist") == ("distilled" in trained.config.backbone.name)
    body = timm.create_model(f"local-dir:{folder}", pretrained=True, num_classes=0).eval()
    assert body(images).shape == (3, 32), "and still a backbone, where that is asked for"


def test_other_logits_are_noticed(run, tmp_path):
    folder, trained = export(run, out=tmp_path / "spoilt"), open_trained(run)
    with torch.no_grad():
        trained.classifier.cls.bias += 1
    with pytest.raises(ValueError, match="plain timm's logits differ from ours"):
        verify(trained, folder)


def test_an_export_evaluates_and_teaches_like_its_run(run, tmp_path):
    moved = export(run, out=tmp_path / "moved")
    found = evaluate_run(moved)
    assert found == pytest.approx(evaluate_run(run))
    assert {"eval/top1", "eval/top5", "eval/knn5_top1"} <= found.keys()
    images = torch.randn(2, 3, 16, 16)
    teachers = [
        FrozenNetwork(weights=str(path)).build(image_size=(16, 16), seed=0, classes=3)
        for path in (run, moved)
    ]
    assert torch.equal(*(teacher(images).logits for teacher in teachers))


@pytest.mark.parametrize("classes", [("one", "two"), ("one", "two", "three")])
def test_data_of_other_classes_are_measured_by_features_alone_and_that_is_said(run, tmp_path, classes):
    said: list[str] = []
    found = evaluate_run(run, [f"data={pictures(tmp_path, classes=classes)}"], say=said.append)
    assert "eval/top1" not in found and "eval/knn5_top1" in found
    assert len(said) == 1 and said[0].startswith("no eval/top1: the classifier learned other classes (3)")


def test_a_network_whose_head_in_timm_reads_another_token_is_exported_as_a_backbone(tmp_path):
    run = small_run(tmp_path, "eva_large_patch14_196")
    assert not heads_agree(open_trained(run).backbone)
    assert json.loads((export(run) / "config.json").read_text())["num_classes"] == 0
    assert "eval/top1" in evaluate_run(run)
    with pytest.raises(ValueError, match="classifies another token"):
        FrozenNetwork(weights=str(run)).build(image_size=(16, 16), seed=0, classes=3)


def test_weights_that_a_student_began_with_are_not_asked_for_again(tmp_path):
    began = Backbone(name="deit_tiny_patch16_224", pretrained=True).from_scratch()
    assert not began.starts_trained and began.build(seed=0).dim == 192
