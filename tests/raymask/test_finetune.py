"""Fine-tuning: which layers learn how fast, and that a backbone learns the labels."""

import pytest
import torch

from raymask.config import load
from raymask.evaluate import Evaluate, open_evaluation
from raymask.evaluate.finetune import finetune, plan
from raymask.evaluate.finetune_network import FineTuned, layer_of, layered, set_rates
from raymask.evaluate.finetune_settings import FineTune
from tests.raymask.autoencoding import BACKBONES
from tests.raymask.tiny_run import RECIPE, pictures

PLAIN = {"randaugment": None, "mixup": 0.0, "cutmix": 0.0, "erasing": 0.0, "smoothing": 0.0}
QUICK = FineTune(epochs=20, base_lr=0.1, drop_path=0.0, scale=(0.5, 1.0), **PLAIN)


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    folder = tmp_path_factory.mktemp("finetune")
    (folder / "tiny.yaml").write_text(RECIPE)
    return load(str(folder / "tiny.yaml"), [f"data.train={pictures(folder / 'pictures')}"])


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("backbone.vit.cls_token", 0),
        ("backbone.vit.pos_embed", 0),
        ("backbone.vit.patch_embed.proj.weight", 0),
        ("backbone.vit.patch_embed4.weight", 0),
        ("backbone.vit.blocks1.0.conv1.weight", 0),
        ("backbone.vit.blocks.0.norm1.weight", 1),
        ("backbone.vit.blocks3.4.mlp.fc1.bias", 5),
        ("backbone.vit.norm.weight", None),
        ("backbone.vit.stage1_output_decode.weight", None),
        ("norm.weight", 7),
        ("head.bias", 7),
    ],
)
def test_layers_are_counted_from_below_the_blocks_to_the_classifier(name, layer):
    assert layer_of(name, 6) == layer


@pytest.mark.parametrize("kind", BACKBONES)
def test_every_layer_has_its_share_of_the_rate_and_what_has_no_part_is_left_alone(kind):
    network = FineTuned(BACKBONES[kind].build(seed=0), 3, drop_path=0.1, seed=0)
    groups = layered(network, decay=0.5, weight_decay=0.05)
    optimiser = torch.optim.AdamW(groups, lr=0.0)
    set_rates(optimiser, 0.8)
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    depth, rates = network.backbone.depth, {}
    for group in optimiser.param_groups:
        for parameter in group["params"]:
            name = names[id(parameter)]
            rates[name] = group["lr"]
            assert (group["weight_decay"] == 0) == (
                parameter.ndim == 1 or name.endswith((".bias", "pos_embed", "cls_token"))
            )
    assert rates == pytest.approx(
        {
            name: 0.8 * 0.5 ** (depth + 1 - layer_of(name, depth))
            for name in names.values()
            if layer_of(name, depth) is not None
        }
    )
    assert {name for name, p in network.named_parameters() if p.requires_grad} == set(rates)
    network(torch.randn(2, 3, 32, 32)).sum().backward()
    assert [name for name, p in network.named_parameters() if p.requires_grad and p.grad is None] == []


def test_a_small_data_set_gets_sixteen_steps_an_epoch():
    assert plan(FineTune(epochs=2), images=1600) == (100, 32, 16)
    assert plan(FineTune(epochs=1.5, batch=64), images=6400) == (64, 150, 100)


def test_a_backbone_learns_the_labels_and_stays_as_it_was(config):
    backbone, evaluation = config.backbone.build(seed=0), open_evaluation(config)
    before = {name: tensor.clone() for name, tensor in backbone.state_dict().items()}
    untaught = FineTune(epochs=0.05, base_lr=1e-9, **PLAIN)
    chance = finetune(backbone, evaluation, untaught, data=config.data)["eval/finetune_top1"]
    found = finetune(backbone, evaluation, QUICK, data=config.data)
    assert found["eval/finetune_top1"] >= 75 > chance
    assert found["eval/finetune_top5"] == 100.0
    assert all(torch.equal(tensor, before[name]) for name, tensor in backbone.state_dict().items())


def test_the_whole_recipe_runs_and_is_a_function_of_the_seed(config):
    backbone, evaluation = config.backbone.build(seed=0), open_evaluation(config)
    first, again = (finetune(backbone, evaluation, FineTune(epochs=1), data=config.data) for _ in range(2))
    assert first == again


def test_images_without_labels_are_refused(config):
    evaluation = open_evaluation(config)
    labels = evaluation.bank.source.labels
    known = labels[0]
    labels[0] = -1
    try:
        with pytest.raises(ValueError, match="1 of the 24 training images have none"):
            finetune(config.backbone.build(seed=0), evaluation, QUICK, data=config.data)
    finally:
        labels[0] = known


def test_a_setting_keeps_the_others_of_the_recipe(config):
    changed = load("mae-laptop", ["data=x", "evaluate.finetune.epochs=3"]).evaluate
    assert changed.finetune == FineTune(epochs=3)
    assert Evaluate().finetune is None
