"""The backbone: which networks can be built, and what their forward promises."""

import subprocess
import sys

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn.functional import softmax

from raymask.vit import Backbone

TINY = {"dim": 48, "depth": 3, "heads": 3, "image_size": 32, "patch_size": 8}

# one of each way in which timm's networks differ: layer scale, [CLS] without position, registers, a second
# class token, a norm before the blocks, norms inside attention and MLP, another activation
KINDS = [
    "vit_small_patch16_224",
    "deit3_small_patch16_224",
    "deit_tiny_distilled_patch16_224",
    "vit_small_patch14_reg4_dinov2",
    "vit_base_patch16_clip_quickgelu_224",
    "beit3_base_patch16_224",
    "flexivit_small",
]
POOLED = "vit_base_patch16_gap_224"  # no class token: the mean patch stands for the image


def build(*, mask_token=False, seed=0, **changes):
    """A small backbone in float64 whose every parameter is random, so that none can hide."""
    backbone = Backbone(**{**TINY, **changes}).build(seed=seed, mask_token=mask_token).double()
    generator = torch.Generator().manual_seed(seed)
    for parameter in backbone.parameters():
        noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        parameter.data += 0.1 * noise
    return backbone


def images(height=32, width=32, count=2):
    generator = torch.Generator().manual_seed(height * width)
    return torch.randn(count, 3, height, width, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("name", [*KINDS, POOLED])
def test_at_the_native_size_it_is_plain_timm(name):
    backbone = build(name=name)
    tokens, _ = backbone(images())
    torch.testing.assert_close(tokens, backbone.vit.eval().forward_features(images()), rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", [*KINDS, POOLED])
def test_dropping_patches_equals_taking_them_out_of_every_attention(name):
    backbone = build(name=name, image_size=48)
    visible = torch.tensor([[0, 3, 7, 8], [1, 2, 10, 11]])
    tokens, extras = backbone(images(24, 32), visible=visible, attention=True)

    prefix = backbone.prefix
    kept = torch.cat([torch.arange(prefix).expand(2, -1), visible + prefix], 1)
    seen = torch.zeros(2, prefix + 12, dtype=torch.bool).scatter(1, kept, True)
    full = backbone.embed(images(24, 32))
    for block in backbone.vit.blocks:
        full = block(full, attn_mask=seen[:, None, None, :].expand(-1, 1, full.shape[1], -1))
    expected = backbone.vit.norm(full).gather(1, kept[:, :, None].expand(-1, -1, backbone.dim))
    torch.testing.assert_close(tokens, expected, rtol=0, atol=1e-12)
    assert extras["attention"].shape == visible.shape


@pytest.mark.parametrize("name", KINDS)
def test_without_patches_the_class_token_its_attention_and_every_gradient_are_the_same(name):
    backbone, drop = build(name=name, drop_path=0.5), torch.linspace(0, 1, 12).reshape(3, 2, 2).double()
    found = []
    for patches in (True, False):
        backbone.zero_grad()
        tokens, extras = backbone(images(), drop=drop, attention=True, last=2, patches=patches)
        front = tokens[:, : backbone.prefix]
        assert tokens.shape[1] == (backbone.prefix + 16 if patches else backbone.prefix)
        front.square().sum().backward()
        gradients = [p.grad for p in backbone.parameters() if p.grad is not None]
        found.append([front, extras["attention"], *extras["cls"], *gradients])
    assert len(found[0]) == len(found[1])
    torch.testing.assert_close(found[1], found[0], rtol=0, atol=1e-12)


@pytest.mark.parametrize("block", [0, 1, 2, -1])
def test_the_attention_of_any_block_is_the_class_tokens_row_of_its_softmax(block):
    backbone = build(registers=2)
    _, extras = backbone(images(), attention=True, attention_block=block, blocks=(0, 1, 2))

    index = block % 3
    entering = backbone.embed(images()) if index == 0 else extras["blocks"][index - 1]
    layer = backbone.vit.blocks[index].attn
    qkv = (
        layer.qkv(backbone.vit.blocks[index].norm1(entering)).reshape(2, -1, 3, 3, 16).permute(2, 0, 3, 1, 4)
    )
    full = softmax(qkv[0] @ qkv[1].transpose(-2, -1) / 4, dim=-1)
    torch.testing.assert_close(extras["attention_heads"], full[:, :, 0, 3:], rtol=0, atol=1e-12)
    torch.testing.assert_close(extras["attention"], full[:, :, 0, 3:].mean(1), rtol=0, atol=1e-12)
    assert not extras["attention"].requires_grad


def softmax_of_last_block(backbone):
    """All of its attention, [b, heads, t, t], by timm's own forward."""
    attention, captured = backbone.vit.blocks[-1].attn, []
    attention.fused_attn = False
    hook = attention.attn_drop.register_forward_hook(lambda _module, _given, out: captured.append(out))
    backbone.vit.eval().forward_features(images())
    hook.remove()
    return captured[0]


@pytest.mark.parametrize("registers", [0, 3])
def test_without_a_class_token_the_mean_patch_stands_for_the_image_and_all_tokens_attend(registers):
    backbone = build(name=POOLED, registers=registers)
    for patches in (True, False):
        tokens, extras = backbone(images(), attention=True, last=2, patches=patches)
        head = backbone.vit.forward_head(tokens, pre_logits=True)
        torch.testing.assert_close(extras["cls"][-1], head, rtol=0, atol=1e-12)
        assert len(extras["cls"]) == 2 and not torch.equal(*extras["cls"])
    expected = softmax_of_last_block(backbone).mean((1, 2))[:, registers:]
    torch.testing.assert_close(extras["attention"], expected, rtol=0, atol=1e-12)


def test_attention_can_be_the_mean_of_class_and_distillation_token():
    backbone = build(name="deit_tiny_distilled_patch16_224")
    full = softmax_of_last_block(backbone)
    for count in (1, 2):
        _, extras = backbone(images(), attention=True, attention_tokens=count)
        expected = full[:, :, :count].mean((1, 2))[:, 2:]
        torch.testing.assert_close(extras["attention"], expected, rtol=0, atol=1e-12)


def test_attention_is_float32_under_autocast():
    backbone = Backbone(**TINY).build(seed=0)
    with torch.autocast("cpu", torch.bfloat16):
        _, extras = backbone(images().float(), attention=True)
    assert extras["attention"].dtype == torch.float32


def test_the_last_class_tokens_are_those_of_the_last_blocks_after_the_final_norm():
    backbone = build()
    tokens, extras = backbone(images(), last=2, blocks=(1,))
    torch.testing.assert_close(extras["cls"][1], tokens[:, 0])
    torch.testing.assert_close(extras["cls"][0], backbone.vit.norm(extras["blocks"][0])[:, 0])
    assert len(extras["cls"]) == 2


def test_pixels_of_hidden_patches_change_nothing():
    backbone = build(mask_token=True)
    hidden = torch.zeros(2, 16, dtype=torch.bool)
    hidden[0, 5] = hidden[1, 15] = True
    other = images()
    other[0, :, 8:16, 8:16] += 1
    other[1, :, 24:, 24:] -= 1
    torch.testing.assert_close(
        backbone(images(), hidden=hidden)[0], backbone(other, hidden=hidden)[0], rtol=0, atol=0
    )
    assert not torch.allclose(backbone(images())[0], backbone(other)[0])


def test_a_visible_patch_can_be_hidden_as_well():
    backbone = build(mask_token=True)
    hidden = torch.zeros(2, 16, dtype=torch.bool).index_fill(1, torch.tensor([3]), True)
    everything = torch.arange(16).expand(2, -1)
    torch.testing.assert_close(
        backbone(images(), hidden=hidden)[0], backbone(images(), hidden=hidden, visible=everything)[0]
    )


def test_a_network_without_mask_token_says_so():
    with pytest.raises(ValueError, match="has no mask token"):
        build()(images(), hidden=torch.ones(2, 16, dtype=torch.bool))


@pytest.mark.parametrize("size", [(32, 32), (16, 48), (64, 24)])
@pytest.mark.parametrize("native", [32, (24, 40)])
def test_any_rectangle_of_patches_is_served(native, size):
    backbone = build(image_size=native)
    tokens, _ = backbone(images(*size))
    assert tokens.shape == (2, 1 + size[0] * size[1] // 64, 48)


def test_images_that_cannot_be_cut_into_patches_are_refused():
    with pytest.raises(ValueError, match="30x32 pixels cannot be cut into patches of 8x8"):
        build()(images(30, 32))


def test_drop_path_skips_the_branches_it_drops_and_scales_the_others():
    backbone = build(drop_path=0.5)
    drop = torch.full((3, 2, 2), 0.99, dtype=torch.float64)
    drop[2, :, 0] = 0.0  # the last block is skipped for the first image
    _, extras = backbone(images(), drop=drop, blocks=(0, 1, 2))
    before, after = extras["blocks"][1:]
    torch.testing.assert_close(after[0], before[0], rtol=0, atol=0)

    block = backbone.vit.blocks[2]
    scaled = before[1:] + 2 * block.attn(block.norm1(before[1:]))
    torch.testing.assert_close(after[1:], scaled + 2 * block.mlp(block.norm2(scaled)))
    _, undropped = backbone(images(), blocks=(0,))
    torch.testing.assert_close(extras["blocks"][0], undropped["blocks"][0], rtol=0, atol=0)  # rate 0


def test_every_parameter_learns():
    backbone = build(mask_token=True, registers=2)
    hidden = torch.zeros(2, 9, dtype=torch.bool).index_fill(1, torch.tensor([3]), True)
    tokens, _ = backbone(images(24, 24), hidden=hidden)
    tokens.square().sum().backward()
    assert not [name for name, p in backbone.named_parameters() if p.grad is None or not p.grad.abs().sum()]


def test_initial_weights_are_a_function_of_the_seed_and_leave_the_global_stream_alone():
    before = torch.random.get_rng_state()
    one, same, other = (Backbone(**TINY).build(seed=seed).state_dict() for seed in (1, 1, 2))
    assert torch.equal(before, torch.random.get_rng_state())
    assert all(torch.equal(one[key], same[key]) for key in one)
    assert not torch.equal(one["vit.cls_token"], other["vit.cls_token"])


def test_initial_weights_are_those_of_the_official_code():
    backbone = Backbone(**{**TINY, "dim": 192}).build(seed=0, mask_token=True)
    vit = backbone.vit
    assert vit.norm.eps == vit.blocks[0].norm1.eps == 1e-6
    for module in vit.modules():
        if isinstance(module, nn.Linear):
            assert module.weight.std().item() == pytest.approx(0.02, rel=0.05)
            assert not module.bias.any()
    assert vit.pos_embed.std().item() == pytest.approx(0.02, rel=0.05)
    assert vit.cls_token.std().item() == pytest.approx(0.02, rel=0.2)
    assert vit.patch_embed.proj.weight.abs().max().item() == pytest.approx(1 / 192**0.5, rel=0.02)  # uniform
    assert not backbone.mask_token.any()


def test_a_local_file_of_weights_is_loaded_and_resampled_to_another_size(tmp_path):
    vit = build().vit.float()
    save_file(vit.state_dict(), tmp_path / "w.safetensors")
    again = Backbone(**TINY, weights=tmp_path / "w.safetensors").build(seed=3)
    assert all(torch.equal(value, again.vit.state_dict()[key]) for key, value in vit.state_dict().items())
    larger = Backbone(**{**TINY, "image_size": 48}, weights=tmp_path / "w.safetensors").build(seed=3)
    assert torch.equal(larger.vit.blocks[0].attn.qkv.weight, vit.blocks[0].attn.qkv.weight)
    assert larger.vit.pos_embed.shape == (1, 37, 48)


def test_weights_of_another_shape_are_refused_in_one_sentence(tmp_path):
    save_file(build(dim=24).vit.float().state_dict(), tmp_path / "w.safetensors")
    with pytest.raises(ValueError, match=r"could not be fetched or do not fit .* backbone.weights"):
        Backbone(**TINY, weights=tmp_path / "w.safetensors").build(seed=0)


def test_unreachable_pretrained_weights_are_told_in_one_sentence(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(
        ValueError, match=r"could not be fetched or do not fit .* backbone.pretrained=false"
    ) as error:
        Backbone(name="vit_tiny_patch16_224", pretrained=True).build(seed=0)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "resnet50"}, "not one of timm's VisionTransformers"),
        ({"name": "swin_tiny_patch4_window7_224"}, "not one of timm's VisionTransformers"),
        ({"name": "vit_smal_patch16_224"}, r"use for instance vit_small_patch"),
        ({"name": "vit_base_patch16_siglip_224"}, "has no class token, and no mean of normalised patches"),
        ({"name": "vit_base_patch16_reg4_gap_256"}, "has no class token, and no mean of normalised patches"),
        ({"name": "vit_base_patch16_xp_224"}, "has blocks of another kind"),
        ({"image_size": 30}, "backbone.patch_size=16 does not divide backbone.image_size=30"),
        ({"image_size": (32, 40)}, "does not divide"),
        ({"dim": 65}, "backbone.dim=65 and backbone.heads=6, which does not divide it"),
        ({"heads": 5}, "backbone.dim=384 and backbone.heads=5, which does not divide it"),
    ],
)
def test_a_backbone_that_cannot_serve_is_refused_with_those_that_can(settings, message):
    with pytest.raises(ValueError, match=message):
        Backbone(**settings).build(seed=0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"dim": 50, "heads": 3}, "backbone.dim=50 cannot be shared by backbone.heads=3"),
        ({"dim": 48, "pretrained": True}, "leave out backbone.dim"),
        ({"weights": "missing.safetensors"}, "'missing.safetensors' is not a file"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        Backbone(**settings)


def test_the_names_it_proposes_can_be_built():
    with pytest.raises(ValueError, match="use for instance") as error:
        Backbone(name="vit_small_patch16_siglip").build(seed=0)
    names = str(error.value).split("use for instance ")[1].split(" (")[0].split(", ")
    assert len(names) > 1
    for name in names:
        Backbone(**TINY, name=name).build(seed=0)


def test_a_classifier_is_kept_on_request():
    backbone = Backbone(**TINY).build(seed=0, classes=7)
    tokens, _ = backbone(images().float())
    assert backbone.vit.forward_head(tokens).shape == (2, 7)
    assert isinstance(backbone.vit, timm.models.vision_transformer.VisionTransformer)


COMPILED = """
import torch
from raymask.vit import Backbone

settings = Backbone(dim=48, depth=3, heads=3, image_size=32, patch_size=8, drop_path=0.1)
backbone = settings.build(seed=0, mask_token=True)
compiled = torch.compile(backbone, fullgraph=True)
generator = torch.Generator().manual_seed(0)
crops = torch.randn(2, 3, 24, 24, generator=generator)
for use in (
    {"drop": torch.rand(3, 2, 2, generator=generator)},
    {"hidden": torch.arange(18).reshape(2, 9) % 2 == 0, "attention": True},
    {"visible": torch.tensor([[0, 2, 5], [1, 3, 8]]), "last": 2},
):
    torch.testing.assert_close(compiled(crops, **use)[0], backbone(crops, **use)[0], rtol=1e-4, atol=1e-5)
"""


@pytest.mark.slow
def test_it_compiles_into_one_graph_for_every_use():
    # in a process of its own, because the suite's shape checks cannot be traced
    done = subprocess.run([sys.executable, "-c", COMPILED], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
