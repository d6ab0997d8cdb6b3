"""Frozen networks: what they make of some patches, for every family of timm."""

import pytest
import timm
import torch
from safetensors.torch import save_file
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from raymask import checkpoint, state
from raymask.config import load, read
from raymask.frozen import FrozenNetwork
from raymask.masks.select import patch_scores
from raymask.methods import build_method
from raymask.teachers import Frozen, cls_attention, embed, look, patchify
from raymask.train import train
from raymask.trained import open_trained

SMALL = {"embed_dim": 24, "depth": 3, "num_heads": 3, "patch_size": 8, "img_size": 32, "num_classes": 7}
FAMILIES = {
    "vit": ("vit_tiny_patch16_224", {}),
    "deit": ("deit_tiny_patch16_224", {}),
    "distilled": ("deit_tiny_distilled_patch16_224", {}),
    "deit3": ("deit3_small_patch16_224", {}),
    "cait": ("cait_xxs24_224", {}),
    "registers": ("vit_tiny_patch16_224", {"reg_tokens": 4}),
    "clip": ("vit_tiny_patch16_224", {"pre_norm": True}),
    "average": ("vit_tiny_patch16_224", {"global_pool": "avg"}),
    "no class token": ("vit_tiny_patch16_224", {"class_token": False, "global_pool": "avg"}),
    "any size": ("vit_tiny_patch16_224", {"dynamic_img_size": True}),
    "normed queries": ("vit_tiny_patch16_224", {"qk_norm": True}),
}


def network(family: str) -> nn.Module:
    name, extra = FAMILIES[family]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = timm.create_model(name, **SMALL, **extra).double().eval()
        with torch.no_grad():
            for parameter in model.parameters():  # far from the near-zero start, so that every part matters
                parameter += 0.05 * torch.randn_like(parameter)
    return model


def images(size: int = 32) -> torch.Tensor:
    return torch.randn(3, 3, size, size, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def places(count: int, patches: int = 16) -> torch.Tensor:
    order = torch.rand(3, patches, generator=torch.Generator().manual_seed(2)).argsort(1)
    return order[:, :count].sort(1).values


@pytest.mark.parametrize("family", FAMILIES)
def test_with_all_patches_the_masked_forward_is_timms_own(family):
    model = network(family)
    assert torch.allclose(look(model, images(), visible=places(16)).logits, model(images()), atol=1e-12)


@pytest.mark.parametrize("family", FAMILIES)
def test_hidden_pixels_change_nothing_and_visible_ones_do(family):
    model, visible = network(family), places(6)
    first = look(model, images(), visible=visible).logits
    shown = torch.zeros(3, 16).scatter_(1, visible, 1.0).reshape(3, 1, 4, 4)
    shown = shown.repeat_interleave(8, 2).repeat_interleave(8, 3).bool()
    noise = images() + 10 * torch.randn_like(images())
    assert torch.allclose(look(model, torch.where(shown, images(), noise), visible=visible).logits, first)
    changed = look(model, torch.where(shown, noise, images()), visible=visible).logits
    assert (changed - first).abs().amax(1).min() > 1e-4


@pytest.mark.parametrize("family", FAMILIES)
def test_the_order_of_kept_places_changes_nothing(family):
    model, visible = network(family), places(6)
    assert torch.allclose(
        look(model, images(), visible=visible).logits, look(model, images(), visible=visible.flip(1)).logits
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_a_kept_patch_keeps_its_place(family):
    model, swapped = network(family), images().roll(8, 3)
    first = look(model, images(), visible=places(6)).logits
    moved = look(model, swapped, visible=(places(6) // 4 * 4 + (places(6) + 1) % 4).sort(1).values).logits
    assert (first - moved).abs().amax(1).min() > 1e-5


@pytest.mark.parametrize("family", ["deit", "cait"])
def test_tokens_of_blocks_are_those_of_the_kept_patches(family):
    model = network(family)
    seen = look(model, images(), visible=places(5), layers=(0, 2, 0))
    assert [tuple(t.shape) for t in seen.tokens] == [(3, 5, 24)] * 3
    assert torch.equal(seen.tokens[0], seen.tokens[2]) and not torch.allclose(seen.tokens[0], seen.tokens[1])
    with pytest.raises(ValueError, match="the network has blocks 0 to 2"):
        look(model, images(), layers=(3,))


def test_patches_are_embedded_alike_before_and_after_the_choice():
    vit = network("deit")
    visible = places(6)
    everything = embed(vit, images())
    chosen = everything[:, 1:].gather(1, visible[:, :, None].expand(-1, -1, 24))
    assert torch.allclose(embed(vit, images(), visible=visible)[:, 1:], chosen, atol=1e-12)
    assert patchify(images(), (8, 8)).shape == (3, 16, 192)


@pytest.mark.parametrize("family", [f for f in FAMILIES if f not in ("cait", "no class token")])
def test_attention_is_the_class_row_of_the_last_block(family):
    model, captured = network(family), []
    attention = model.blocks[-1].attn
    attention.fused_attn = False
    attention.attn_drop.register_forward_hook(lambda _module, _given, out: captured.append(out))
    model(images())
    expected = patch_scores(captured[0], prefix=model.num_prefix_tokens)
    assert torch.allclose(cls_attention(model, images()), expected, atol=1e-12)


def test_attention_of_cait_is_that_of_its_last_class_attention_block():
    model, captured = network("cait"), []
    attention = model.blocks_token_only[-1].attn
    attention.fused_attn = False
    attention.attn_drop.register_forward_hook(lambda _module, _given, out: captured.append(out))
    model(images())
    assert torch.allclose(cls_attention(model, images()), captured[0][:, :, 0, 1:].mean(1), atol=1e-12)


def test_attention_without_a_class_token_is_the_mean_over_queries():
    model, captured = network("no class token"), []
    attention = model.blocks[-1].attn
    attention.fused_attn = False
    attention.attn_drop.register_forward_hook(lambda _module, _given, out: captured.append(out))
    model(images())
    assert torch.allclose(cls_attention(model, images()), captured[0].mean((1, 2)), atol=1e-12)


def test_a_frozen_network_never_trains():
    teacher = Frozen(network("deit")).train()
    assert not any(module.training for module in teacher.modules())
    assert not any(parameter.requires_grad for parameter in teacher.parameters())
    assert not teacher(images().requires_grad_()).logits.requires_grad


def test_a_teacher_of_another_resolution_gets_the_image_resized():
    teacher = Frozen(network("deit"), image_size=(32, 32))
    assert teacher.grid(images(48)) == (4, 4)
    smooth = torch.linspace(-1, 1, 48, dtype=torch.float64).expand(1, 3, 48, 48)
    native = torch.linspace(-1, 1, 32, dtype=torch.float64).expand(1, 3, 32, 32)
    same, turned = ((teacher(smooth).logits - teacher(x).logits).norm() for x in (native, native.mT))
    assert same < 0.1 * turned


def test_a_convolutional_network_teaches_whole_images_only():
    teacher = FrozenNetwork(name="resnet10t").build(image_size=(32, 32), seed=0, classes=5)
    assert teacher(images().float()).logits.shape == (3, 5)
    with pytest.raises(
        ValueError, match=r"ResNet has no tokens of patches .* choose any timm VisionTransformer"
    ):
        teacher(images().float(), places(4))
    with pytest.raises(ValueError, match="no tokens of patches"):
        teacher.grid(images())


def test_a_teacher_of_other_classes_is_refused():
    with pytest.raises(ValueError, match="tells 1000 classes apart, but the student and the data have 5"):
        _Thousand(name="deit_tiny_patch16_224", weights="unused").build(
            image_size=(32, 32), seed=0, classes=5
        )


class _Thousand(FrozenNetwork):
    def _from_timm(self, size, seed, classes):
        return VisionTransformer(img_size=32, patch_size=8, embed_dim=24, depth=1, num_heads=3)


@pytest.mark.parametrize(("name", "sentence"), [("resnet5000", "is not a model of timm")])
def test_a_name_that_timm_does_not_know_is_refused(name, sentence):
    with pytest.raises(ValueError, match=sentence):
        FrozenNetwork(name=name).build(image_size=(32, 32), seed=0, classes=5)


def test_a_frozen_network_whose_heads_do_not_divide_its_width_is_refused():
    with pytest.raises(ValueError, match=r"cannot be built with .*'embed_dim': 25"):
        FrozenNetwork(name="deit3_small_patch16_224", patch_size=8, dim=25, depth=1, heads=3).build(
            image_size=(32, 32), seed=0, classes=5
        )


def test_an_untrained_teacher_is_a_function_of_its_seed():
    small = FrozenNetwork(name="deit3_small_patch16_224", patch_size=8, dim=24, depth=2, heads=3)
    first, again, other = (small.build(image_size=(32, 32), seed=seed, classes=5) for seed in (0, 0, 1))
    state = first.state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in again.state_dict().items())
    assert any(not torch.equal(tensor, state[name]) for name, tensor in other.state_dict().items())
    assert small.is_untrained


def test_settings_that_a_network_does_not_have_are_refused():
    with pytest.raises(ValueError, match="'resnet10t' has no setting of its own for patch_size"):
        FrozenNetwork(name="resnet10t", patch_size=8).build(image_size=(32, 32), seed=0, classes=5)


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no run directory, no checkpoint and no export"):
        FrozenNetwork(weights=str(tmp_path)).build(image_size=(32, 32), seed=0, classes=5)


def test_a_file_of_weights_under_timms_names_is_loaded_strictly(tmp_path):
    small = {"name": "deit_tiny_patch16_224", "patch_size": 8, "dim": 24, "depth": 2, "heads": 3}
    first = FrozenNetwork(**small).build(image_size=(32, 32), seed=0, classes=5)
    save_file(first.network.state_dict(), tmp_path / "w.safetensors")
    again = FrozenNetwork(**small, weights=str(tmp_path / "w.safetensors"))
    assert not again.is_untrained
    second = again.build(image_size=(32, 32), seed=9, classes=5)
    assert torch.equal(second(images().float()).logits, first(images().float()).logits)
    deeper = again.model_copy(update={"depth": 3})
    with pytest.raises(ValueError, match="tensors match"):
        deeper.build(image_size=(32, 32), seed=0, classes=5)


@pytest.mark.slow
def test_a_run_teaches_and_chooses_as_its_own_networks_do(photos, tmp_path):
    root = [f"run.root={tmp_path}", f"data={photos}", "debug=true"]
    labelled = train(load("kd-soft-laptop", [*root, "method.objective.kind=none", "run.name=labelled"]))
    plain = train(load("dino", [*root, "run.name=plain"]))
    pixels, size = images().float(), {"image_size": (32, 32), "seed": 0}
    teacher = FrozenNetwork(weights=str(labelled)).build(classes=2, **size)
    student = assembled(labelled)
    tokens, _ = student.backbone(pixels)
    assert torch.allclose(teacher(pixels).logits, student.head(tokens)[0], atol=1e-5)
    chooser = FrozenNetwork(weights=str(plain)).build(classes=None, **size)
    backbone = open_trained(plain, network="teacher").backbone
    expected = backbone(pixels, attention=True)[1]["attention"]
    assert torch.allclose(chooser.scores(pixels), expected, atol=1e-6)
    with pytest.raises(ValueError, match="holds no classifier"):
        FrozenNetwork(weights=str(plain)).build(classes=2, **size)


def assembled(run):
    """The student of a run's last checkpoint, by way of its method."""
    method = build_method(read(run / "config.yaml"))
    folder = checkpoint.latest(run / "checkpoints")
    method.load_state_dict(state.part(folder, "model"))
    return method.eval().student
