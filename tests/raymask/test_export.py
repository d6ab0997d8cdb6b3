"""Exports open in plain timm and give the same features."""

import json
import shutil

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file

from raymask.checkpoint import latest
from raymask.evaluate import evaluate_run
from raymask.export import export, verify
from raymask.trained import load_strictly, open_trained
from tests.raymask.tiny_run import tiny_run


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return tiny_run(tmp_path_factory.mktemp("export"), "backbone.registers=2")


@pytest.mark.parametrize("network", ["teacher", "student"])
def test_plain_timm_opens_the_folder_and_gives_the_same_features(run, network):
    folder = export(run, network=network)
    vit = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    images = torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    ours = open_trained(run, network=network).backbone(images)[0]
    assert torch.allclose(vit.forward_features(images), ours, atol=1e-5)


def test_the_weights_load_strictly_into_a_model_made_by_name(run):
    folder = export(run)
    about = json.loads((folder / "config.json").read_text())
    vit = timm.create_model(about["architecture"], num_classes=0, **about["model_args"])
    vit.load_state_dict(load_file(folder / "model.safetensors"), strict=True)
    path = str(folder / "model.safetensors")
    timm.create_model(about["architecture"], num_classes=0, checkpoint_path=path, **about["model_args"])


def test_the_config_says_where_it_comes_from(run):
    about = json.loads((export(run) / "config.json").read_text())
    assert about["raymask"]["step"] == 4
    assert about["raymask"]["run"] == run.name
    assert about["pretrained_cfg"]["input_size"] == [3, 16, 16]


def test_an_export_evaluates_like_its_run(run, tmp_path):
    moved = export(run, out=tmp_path / "moved")
    assert evaluate_run(moved) == pytest.approx(evaluate_run(run))


def test_a_second_export_replaces_the_first_and_leaves_nothing_beside_it(run, tmp_path):
    folder = export(run, out=tmp_path / "one")
    assert export(run, out=folder) == folder
    assert sorted(p.name for p in tmp_path.iterdir()) == ["one"]


def test_a_folder_of_something_else_is_never_replaced(run, tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("years of work")
    with pytest.raises(ValueError, match="is not an export"):
        export(run, out=tmp_path / "thesis")
    assert (tmp_path / "thesis" / "chapter.tex").exists()


def test_other_weights_are_noticed(run, tmp_path):
    folder = export(run, out=tmp_path / "spoilt")
    weights = load_file(folder / "model.safetensors")
    save_file(weights | {"norm.bias": weights["norm.bias"] + 1}, folder / "model.safetensors")
    with pytest.raises(ValueError, match="differ from ours"):
        verify(open_trained(run), folder)


def test_a_load_counts_its_tensors_or_names_what_is_wrong(run):
    backbone = open_trained(run).backbone
    weights = dict(backbone.vit.state_dict())
    count = len(weights)
    assert load_strictly(backbone.vit, weights, where=run) == f"{count}/{count} tensors"
    weights["norm.weight"] = weights["norm.weight"][:3]
    with pytest.raises(ValueError, match=rf"{count - 1}/{count} tensors match.*norm\.weight"):
        load_strictly(backbone.vit, weights, where=run)


def test_a_run_without_that_network_says_what_it_has(run, tmp_path):
    moved = tmp_path / "alone"
    shutil.copytree(latest(run / "checkpoints"), moved)
    weights = load_file(moved / "model.safetensors")
    kept = {name: tensor for name, tensor in weights.items() if not name.startswith("teacher.")}
    save_file(kept, moved / "model.safetensors")
    with pytest.raises(ValueError, match="holds no teacher backbone; it holds student"):
        open_trained(moved, network="teacher")
