"""Evaluation of what a run left: right numbers, the same again, and sentences where there can be none."""

import json

import pytest
import torch

from pipelines.evaluation import EvaluationBatch
from raymask.config import change
from raymask.evaluate import evaluate_pixels, evaluate_run, open_evaluation
from raymask.evaluate.features import extract
from raymask.evaluate.splits import why_no_accuracies
from raymask.trained import open_trained
from tests.raymask.autoencoding import BACKBONES
from tests.raymask.tiny_run import pictures, tiny_run
from tests.raymask.toy import dino


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return tiny_run(tmp_path_factory.mktemp("evaluate"))


@pytest.fixture(scope="module")
def trained(run):
    return open_trained(run)


def test_the_loop_evaluates_before_between_and_after(run):
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    steps = [line["step"] for line in lines if "eval/knn5_top1" in line]
    assert steps == [0, 2, 4]


def test_a_run_evaluates_to_what_its_loop_measured_at_the_end(run):
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    last = [line for line in lines if "eval/knn5_top1" in line][-1]
    results = evaluate_run(run)
    assert {name: last[name] for name in results} == pytest.approx(results, abs=1e-4)


def test_results_are_written_into_the_run_with_what_they_mean(run):
    results = evaluate_run(run, ["evaluate.linear=true"], baselines=True)
    written = json.loads((run / "eval" / "teacher_step_00000004.json").read_text())
    assert written["results"] == results
    assert (written["bank_images_asked"], written["query_images_asked"]) == (24, 12)
    assert {"eval/linear_top1", "untrained/knn5_top1", "pixels/knn5_top1"} <= results.keys()


@pytest.mark.parametrize("change", ["mask.ratio=0.5", "train.precision=bf16", "debug=true"])
def test_keys_that_an_evaluation_does_not_read_are_refused(run, change):
    key = change.partition("=")[0]
    with pytest.raises(ValueError, match=f"^{key} cannot be set for an evaluation: it takes evaluate.KEY"):
        evaluate_run(run, [change])


def test_extracting_features_leaves_the_modes_of_training_as_they_were():
    method, one = dino(), torch.zeros(1, dtype=torch.int64)
    modes = [module.training for module in method.modules()]
    for network in (method.student, method.teacher):
        extract(network.backbone, [EvaluationBatch(torch.zeros(1, 3, 32, 32).double(), one, one)])
        assert [module.training for module in method.modules()] == modes


def test_a_k_beyond_the_bank_is_named_after_the_bank(run):
    assert "eval/knn24_top1" in evaluate_run(run)


def test_pixels_of_plainly_coloured_classes_are_enough(trained):
    assert evaluate_pixels(open_evaluation(trained.config))["eval/knn1_top1"] == 100.0


def test_features_come_in_the_order_of_the_samples_whatever_the_batch(trained):
    found = []
    for batch in (5, 24):
        evaluation = open_evaluation(change(trained.config, [f"evaluate.batch={batch}"]))
        found.append(extract(trained.backbone, evaluation.bank.batches()))
    assert torch.allclose(found[0].cls, found[1].cls, atol=1e-5)
    assert torch.equal(found[0].labels, found[1].labels)


def test_small_networks_give_the_probe_four_cls_and_wide_ones_cls_and_mean_patch(trained):
    batches = list(open_evaluation(trained.config).queries.batches())
    assert extract(trained.backbone, batches).linear.shape == (12, 4 * 32)
    wide = change(trained.config, ["backbone.dim=768", "backbone.depth=1"]).backbone.build(seed=0)
    features = extract(wide, batches)
    assert features.linear.shape == (12, 2 * 768)
    assert torch.equal(features.linear[:, :768], features.cls)


@pytest.mark.parametrize("kind", BACKBONES)
def test_maes_probe_gets_the_normalised_mean_of_the_last_blocks_patches(kind):
    backbone, one = BACKBONES[kind].build(seed=0), torch.zeros(2, dtype=torch.int64)
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    features = extract(backbone, [EvaluationBatch(images, one, one)], recipe="mae")
    if kind == "vit":
        tokens = backbone.vit.forward_intermediates(images, norm=False, output_fmt="NLC")[1][-1]
    else:  # what is fused in after the last block is left out
        tokens, _ = backbone.vit.stages(images)
    mean = tokens.mean(1)
    expected = (mean - mean.mean(1, keepdim=True)) / mean.var(1, keepdim=True, correction=0).add(1e-6).sqrt()
    assert torch.allclose(features.linear, expected, atol=1e-4)


def test_max_images_spreads_over_the_split(trained):
    evaluation = open_evaluation(change(trained.config, ["evaluate.max_images=6"]))
    assert evaluation.bank.samples.tolist() == [0, 4, 8, 12, 16, 20]


def test_student_and_teacher_differ(run):
    both = [open_trained(run, network=name).backbone.state_dict() for name in ("teacher", "student")]
    assert any(not torch.equal(both[0][name], both[1][name]) for name in both[0])


def test_images_without_labels_get_health_and_a_sentence(trained, tmp_path):
    flat = pictures(tmp_path / "flat", classes=())
    evaluation = open_evaluation(change(trained.config, [f"data.train={flat}"]))
    assert "holdout=0.1" in evaluation.missing
    with pytest.raises(ValueError, match="no accuracies"):
        evaluate_pixels(evaluation)


def test_other_classes_are_refused(trained, tmp_path):
    other = pictures(tmp_path / "other", classes=("dark", "light"))
    config = change(
        trained.config, [f"data.val={other}/val", f"data.train={trained.config.data.train}/train"]
    )
    assert "differ" in open_evaluation(config).missing


def test_more_classes_than_labelled_images_are_refused(trained):
    class Few:
        classes = ("a", "b", "c")
        labels = torch.tensor([0, -1]).numpy()

    assert "3 classes but only 1 labelled" in why_no_accuracies(Few(), Few())


def test_a_crop_larger_than_its_image_is_refused(trained):
    with pytest.raises(ValueError, match="give at least 16"):
        open_evaluation(change(trained.config, ["evaluate.resize=8"]))


def test_what_is_no_run_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no run directory"):
        evaluate_run(tmp_path)
