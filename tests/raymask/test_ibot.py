"""iBOT and AttMask: DINO with a patch objective, masks chosen by the teacher's attention."""

import pytest
import torch

from raymask.heads import Head
from raymask.masks import Mask
from raymask.methods.dino import Dino, DinoMethod
from raymask.methods.patch import Patch, hidden_patches
from raymask.progress import Progress
from raymask.streams import Rng
from raymask.vit import Backbone
from tests.raymask.toy import batch, progress

RNG = Rng(seed=1, step=0)
ATTENTION = {"kind": "attention"}


BODY = Backbone(image_size=32, patch_size=8, dim=24, depth=2, heads=2, drop_path=0.0)


def ibot(
    mask: Mask | None = None, *, patch: Patch | None = None, cls_weight: float = 1.0, **head
) -> DinoMethod:
    shape = Head(hidden_dim=16, bottleneck_dim=8, out_dim=24, **head)
    settings = Dino(head=shape, cls_weight=cls_weight, patch=patch or Patch())
    return DinoMethod(settings, BODY, mask or Mask(), seed=0).double().train()


def test_the_patch_loss_is_the_mean_over_crops_of_the_mean_over_their_hidden_patches():
    method = ibot(Mask(strategy={"kind": "block"}, spread=0.2, per="image", probability=0.5, ratio=0.4))
    data = batch()
    report = method(data, progress(), RNG)
    masks = method.mask.draw(
        data.epochs, data.samples, views=(0, 1), grid=(4, 4), progress=progress(), rng=RNG
    )
    with torch.no_grad():
        expected = naive_patch_loss(method, data, masks.hidden)
    assert report["loss_patch"].item() == pytest.approx(expected, abs=1e-10)
    assert report["loss"].item() == pytest.approx(
        (report["loss_cls"] + report["loss_patch"]).item(), abs=1e-12
    )


def naive_patch_loss(
    method, data, hidden, *, student_layer="last_layer", teacher_layer="last_layer"
) -> float:
    """iBOT's formula written out, crop by crop."""
    images = data.crops["global"].flatten(0, 1)
    student = logits(method.student, images, hidden=hidden.flatten(0, 1), layer=student_layer)
    teacher = logits(method.teacher, images, layer=teacher_layer)
    targets = torch.softmax(teacher / method.settings.patch.teacher_temperature(progress()), -1)
    sharp = student / method.settings.student_temperature(progress())
    terms = -(targets * torch.log_softmax(sharp, -1)).sum(-1)
    crops = [
        row[mask].mean() if mask.any() else torch.zeros(()) for row, mask in zip(terms, hidden.flatten(0, 1))
    ]
    return torch.stack(crops).mean().item()


def logits(network, images, *, hidden=None, layer="last_layer"):
    """Scores of every patch of every crop, by one of the head's last layers."""
    tokens, _ = network.backbone(images, hidden=hidden)
    rows = network.head.bottleneck(tokens[:, 1:].flatten(0, 1))
    return (rows @ getattr(network.head, layer).weight().T).unflatten(0, (len(images), -1))


def test_the_patch_center_is_the_mean_over_all_patches_hidden_or_not():
    method, data = ibot(), batch()
    method(data, progress(), RNG)
    method.update_teacher(progress())
    with torch.no_grad():
        # The teacher has moved since; its patches were those of the initial weights.
        patches = logits(ibot().teacher, data.crops["global"].flatten(0, 1))
    assert torch.allclose(method.patch.center.value, 0.1 * patches.flatten(0, 1).mean(0), atol=1e-12)


def test_chunks_add_up_to_the_whole_batch():
    method, data = ibot(Mask(strategy=ATTENTION, spread=0.2)), batch(6)
    whole = method(data, progress(), RNG)
    parts = [method(part, progress(), RNG) for part in data.chunks(2)]
    for name in ("loss_cls", "loss_patch"):
        assert torch.stack([part[name] for part in parts]).mean().item() == pytest.approx(
            whole[name].item(), abs=1e-12
        )
    assert sum(part["masks"] for part in parts) == whole["masks"]


@pytest.mark.parametrize(("prefer", "expected"), [("high", True), ("low", False)])
def test_the_teachers_attention_decides_and_guidance_is_reported(prefer, expected, monkeypatch):
    method = ibot(Mask(strategy=ATTENTION | {"prefer": prefer}))
    with torch.no_grad():
        _, extras = method.teacher.backbone(batch().crops["global"].flatten(0, 1), attention=True)
    best, shown, forward = extras["attention"].topk(4).indices, [], method.student.backbone.forward

    def record(images, **given):
        shown.append(given["hidden"])
        return forward(images, **given)

    monkeypatch.setattr(method.student.backbone, "forward", record)
    method(batch(locals_=0), progress(), RNG)
    assert shown[0].gather(1, best).all().item() is expected
    assert method.rates(progress())["guidance"] == 1.0


def test_separate_heads_have_prototypes_of_their_own():
    method = ibot(patch_dim=40)
    assert method.patch.center.value.shape == (40,)
    method(batch(), progress(), RNG)["loss"].backward()
    assert method.student.head.last_layer_patches.direction.grad.abs().sum() > 0


LAYERS = {
    ("as_student", None): ("last_layer", "last_layer"),
    ("shared", None): ("last_layer", "last_layer"),
    ("own", None): ("last_layer", "last_layer_patches"),
    ("as_student", 24): ("last_layer_patches", "last_layer_patches"),
    ("shared", 24): ("last_layer_patches", "last_layer"),
    ("own", 24): ("last_layer_patches", "last_layer_patches"),
}


@pytest.mark.parametrize(("teacher", "patch_dim"), LAYERS)
def test_patches_meet_the_last_layers_that_student_and_teacher_have_for_them(teacher, patch_dim):
    method, data = ibot(Mask(ratio=0.5), teacher_patches=teacher, patch_dim=patch_dim), batch()
    with torch.no_grad():  # layers that began alike are told apart
        for number, parameter in enumerate(method.teacher.head.parameters()):
            parameter += 0.1 * torch.randn(
                parameter.shape, generator=torch.Generator().manual_seed(number), dtype=parameter.dtype
            )
    report = method(data, progress(), RNG)
    masks = method.mask.draw(
        data.epochs, data.samples, views=(0, 1), grid=(4, 4), progress=progress(), rng=RNG
    )
    student, of_teacher = LAYERS[teacher, patch_dim]
    with torch.no_grad():
        expected = naive_patch_loss(
            method, data, masks.hidden, student_layer=student, teacher_layer=of_teacher
        )
    assert report["loss_patch"].item() == pytest.approx(expected, abs=1e-10)
    report["loss"].backward()
    assert all(p.grad is not None for p in method.student.parameters() if p.requires_grad)


def test_a_teachers_own_layer_beside_a_student_that_shares_stays_as_it_began():
    method = ibot(teacher_patches="own")
    own = method.teacher.head.last_layer_patches.direction
    began, body = own.clone(), method.teacher.head.last_layer.direction.clone()
    with torch.no_grad():
        for parameter in method.student.parameters():
            parameter += 0.1
    method.update_teacher(progress())
    assert torch.equal(own, began)
    assert not torch.equal(method.teacher.head.last_layer.direction, body)


@pytest.mark.parametrize(("cls", "patch"), [(0.5, 2.0), (0.0, 1.0), (1.0, 0.0)])
def test_both_losses_have_weights(cls, patch):
    one = ibot()(batch(), progress(), RNG)
    weighted = ibot(patch=Patch(weight=patch), cls_weight=cls)(batch(), progress(), RNG)
    expected = cls * one["loss_cls"] + patch * one["loss_patch"]
    assert weighted["loss"].item() == pytest.approx(expected.item(), abs=1e-12)
    assert weighted["loss_cls"].item() == pytest.approx(cls * one["loss_cls"].item(), abs=1e-12)
    assert weighted["below_uniform"].item() == pytest.approx(one["below_uniform"].item(), abs=1e-12)


@pytest.mark.parametrize("patch", [None, Patch(weight=0.0)])
def test_no_weight_for_anything_is_refused(patch):
    with pytest.raises(ValueError, match=r"method\.cls_weight=0 leaves nothing to learn"):
        DinoMethod(Dino(cls_weight=0.0, patch=patch), BODY, Mask(), seed=0)


def test_a_teacher_that_shares_needs_as_many_prototypes_of_patches_in_the_student():
    with pytest.raises(ValueError, match=r"out_dim=24 prototypes, but the student has head\.patch_dim=40"):
        ibot(teacher_patches="shared", patch_dim=40)


def test_targets_that_sharpen_before_there_are_masks_are_remarked_on():
    waits = Patch(teacher_temperature={"kind": "ramp", "start": 0.04, "end": 0.07, "delay": 0.5})
    assert ibot(Mask(start=0.5), patch=waits).remarks() == []
    assert ibot(Mask()).remarks() == []
    (sentence,) = ibot(Mask(start=0.5)).remarks()
    assert "method.patch.teacher_temperature.delay=0.5" in sentence


def test_before_its_start_nothing_is_masked_and_the_patch_loss_is_zero():
    method = ibot(Mask(start=0.5))
    early = method(batch(), Progress(step=0, steps=20, steps_per_epoch=2), RNG)
    assert early["loss_patch"] == 0 and early["mask_ratio"] == 0
    early["loss"].backward()
    assert all(p.grad is not None for p in method.student.parameters() if p.requires_grad)
    assert method(batch(), Progress(step=10, steps=20, steps_per_epoch=2), RNG)["loss_patch"] > 0


def test_hidden_patches_weigh_one_over_their_crop():
    hidden = torch.tensor(
        [[[True, True, False], [False, False, False]], [[False, False, True], [True, True, True]]]
    )
    found = hidden_patches(hidden)
    assert found.places.tolist() == [0, 1, 8, 9, 10, 11]
    assert found.weights.tolist() == pytest.approx([1 / 8, 1 / 8, 1 / 4, 1 / 12, 1 / 12, 1 / 12])


@pytest.mark.parametrize(
    ("mask", "sentence"),
    [
        ({"kind": "drop"}, "method.patch predicts the hidden patches"),
        ({"views": "none"}, "method.patch predicts the hidden patches"),
        ({"strategy": ATTENTION, "views": "student"}, "the guide looks only at whole global crops"),
        ({"strategy": {"kind": "block"}, "kind": "drop"}, "must hide the same count"),
        ({"strategy": ATTENTION | {"reveal_pool": 0.1}, "kind": "drop"}, "must hide the same count"),
        ({"spread": 0.2, "per": "image", "kind": "drop"}, "must hide the same count"),
        ({"ratio": 0.1, "spread": 0.2}, "leaves nothing visible or nothing hidden"),
    ],
)
def test_what_cannot_be_combined_gets_one_sentence(mask, sentence):
    with pytest.raises(ValueError, match=sentence):
        ibot(Mask(**mask))


def test_an_own_last_layer_without_a_patch_objective_is_refused():
    with pytest.raises(ValueError, match="patch_dim is for the patch objective"):
        DinoMethod(Dino(head=Head(patch_dim=8)), BODY, Mask(), seed=0)
