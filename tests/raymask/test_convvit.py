"""ConvViT on visible patches gives what the dense network gives."""

import pytest
import torch

from raymask.convbackbone import ConvBackbone
from raymask.convvit import ConvViT
from raymask.sincos import sincos_positions
from tests.benchmarks.convvit import dense

SHAPES = [
    {
        "dims": (8, 12, 16),
        "depths": (2, 1, 1),
        "heads": 2,
        "mlp_ratios": (2.0, 2.0, 2.0),
        "strides": (4, 2, 2),
    },
    {
        "dims": (8, 8, 16),
        "depths": (1, 2, 1),
        "heads": 4,
        "mlp_ratios": (1.0, 3.0, 2.0),
        "strides": (2, 2, 2),
    },
    {
        "dims": (8, 8, 16),
        "depths": (1, 1, 1),
        "heads": 2,
        "mlp_ratios": (2.0, 2.0, 2.0),
        "strides": (2, 4, 2),
    },
]


def network(shape, *, side=4, seed=0):
    size = side * shape["strides"][0] * shape["strides"][1] * shape["strides"][2]
    torch.manual_seed(seed)
    return ConvViT(image_size=(size, size), **shape).double(), size


def some_patches(images, count, patches, seed=0):
    draws = torch.rand(images, patches, generator=torch.Generator().manual_seed(seed))
    return draws.argsort(dim=1)[:, :count]


@pytest.mark.parametrize("count", [1, 6, 16])
@pytest.mark.parametrize("shape", SHAPES)
def test_visible_patches_alone_give_the_tokens_and_gradients_of_the_dense_network(shape, count):
    convvit, size = network(shape)
    images = torch.randn(2, 3, size, size, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    visible = some_patches(2, count, 16)
    gradients = []
    for tokens in (convvit(images, visible=visible), dense(convvit, images, visible)):
        trained = [p for p in convvit.parameters() if p.requires_grad]
        gradients.append((tokens, *torch.autograd.grad((tokens * tokens.detach().cos()).sum(), trained)))
    for ours, theirs in zip(*gradients):
        assert (ours - theirs).abs().max() <= 1e-10 * max(1.0, float(theirs.detach().abs().max()))


@pytest.mark.parametrize("shape", SHAPES)
def test_hidden_pixels_change_nothing(shape):
    convvit, size = network(shape)
    images = torch.randn(1, 3, size, size, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    visible = torch.tensor([[0, 5, 6]])
    changed = images.clone()
    changed[:, :, size // 2 :] = 100.0  # the lower two rows of patches, all hidden
    assert torch.equal(convvit(images, visible=visible), convvit(changed, visible=visible))


def test_a_whole_image_is_all_patches_in_raster_order():
    convvit, size = network(SHAPES[0])
    images = torch.randn(2, 3, size, size, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    assert torch.equal(convvit(images), convvit(images, visible=torch.arange(16).expand(2, -1)))


def test_rectangular_and_larger_images_take_resized_positions():
    convvit, size = network(SHAPES[0])
    assert convvit(torch.zeros(1, 3, size, 2 * size, dtype=torch.float64)).shape == (1, 32, 16)


def test_positions_are_fixed_and_those_of_the_grid():
    convvit = ConvBackbone(image_size=(32, 64), dims=(8, 8, 16), depths=(1, 1, 1), heads=2).build(seed=0).vit
    assert not convvit.pos_embed.requires_grad
    assert torch.allclose(convvit.pos_embed[0].double(), sincos_positions(16, (2, 4)), atol=1e-7)


def test_a_backbone_is_a_function_of_its_seed():
    settings = ConvBackbone(image_size=32, dims=(8, 8, 16), depths=(1, 1, 1), heads=2)
    first, again, other = (settings.build(seed=seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["vit.patch_embed1.proj.weight"], other["vit.patch_embed1.proj.weight"])


def test_what_a_convvit_cannot_do_is_refused_in_a_sentence():
    backbone = ConvBackbone(image_size=32, dims=(8, 8, 16), depths=(1, 1, 1), heads=2).build(seed=0)
    images = torch.zeros(1, 3, 32, 32)
    with pytest.raises(ValueError, match="ConvViT has no mask token"):
        backbone(images, hidden=torch.zeros(1, 4, dtype=torch.bool))
    with pytest.raises(ValueError, match="ConvViT has no class token"):
        backbone(images, attention=True)
    with pytest.raises(ValueError, match="stride of 16 does not divide an image of 24x32 pixels"):
        backbone.grid(24, 32)
    with pytest.raises(ValueError, match="ConvViT serves methods that drop patches"):
        ConvBackbone().build(seed=0, mask_token=True)
