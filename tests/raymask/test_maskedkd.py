"""MaskedKD: who sees what, what is learned, and which settings are refused."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch

from pipelines.batch import Batch
from pipelines.crops import IMAGENET_MEAN, IMAGENET_STD, Crops, LocalCrops, MultiCrop
from raymask.distillation import attention_loss
from raymask.frozen import FrozenNetwork
from raymask.masks import Mask
from raymask.methods.kd_objectives import Attention, Deit, Hard, Manifold, Nothing, Soft
from raymask.methods.keep import Keep
from raymask.methods.maskedkd import MaskedKD, MaskedKDMethod
from raymask.mixing import Erasing, Mixing
from raymask.progress import Progress
from raymask.schedules import Linear
from raymask.streams import Rng
from raymask.teachers import Frozen, cls_attention
from raymask.vit import Backbone

RNG = Rng(seed=1, step=0)
NOW = Progress(step=3, steps=20, steps_per_epoch=2)
TEACHER = FrozenNetwork(name="deit_tiny_patch16_224", patch_size=8, dim=32, depth=3, heads=2)
OBJECTIVES = [Nothing(), Soft(), Hard(), Deit(), Deit(hard=False), Attention(), Manifold(tokens=20)]


def build(
    mask: Mask | None = None, *, student: str = "deit_tiny_patch16_224", views: int = 2, size=32, **settings
) -> MaskedKDMethod:
    """A small method in float64, in training mode."""
    body = Backbone(name=student, image_size=size, patch_size=8, dim=24, depth=2, heads=2, drop_path=0.1)
    crops = MultiCrop(
        global_crops=Crops(count=views, size=size, blur=0.0, solarise=0.0), local_crops=LocalCrops(count=0)
    )
    given = {"classes": 5, "teacher": TEACHER, "keep": Keep(ratio=0.5)} | settings
    return MaskedKDMethod(MaskedKD(**given), body, mask or Mask(views="none"), crops, seed=0).double().train()


def batch(images: int = 4, *, views: int = 2, size: int = 32, first: int = 0) -> Batch:
    draw = torch.Generator().manual_seed(5)
    pixels = torch.randn(views, 12, 3, size, size, generator=draw, dtype=torch.float64)
    who = torch.arange(first, first + images)
    crops = {"global": pixels[:, first : first + images]}
    return Batch(crops, who % 5, who + 3, torch.zeros_like(who), who, 0, images, 1)


@contextmanager
def watched(method: MaskedKDMethod) -> Iterator[list]:
    """What the teacher is given, call by call: (images, visible places or None)."""
    calls: list = []
    hook = method.teacher.register_forward_pre_hook(
        lambda _module, given: calls.append((given[0], given[1])), with_kwargs=False
    )
    yield calls
    hook.remove()


@pytest.mark.parametrize("source", ["student", "teacher", "network", "random"])
@pytest.mark.parametrize(
    "objective", OBJECTIVES, ids=lambda o: f"{o.kind}{'-soft' * (not getattr(o, 'hard', True))}"
)
def test_every_objective_learns_from_every_choice_of_patches(objective, source):
    selector = TEACHER if source == "network" else None
    method = build(objective=objective, keep=Keep(ratio=0.5, source=source), selector=selector)
    report = method(batch(), NOW, RNG)
    report["loss"].backward()
    assert report["loss"].isfinite()
    missing = [n for n, p in method.student.named_parameters() if p.grad is None]
    assert missing == []
    assert all(p.grad is None for p in method.teacher.parameters())
    assert all(not value.requires_grad for name, value in report.items() if name != "loss")
    assert {"loss", "base", "accuracy", "mask_ratio", "masks"} <= report.keys()


@pytest.mark.parametrize(
    "name",
    [
        "vit_tiny_patch16_224",
        "deit_tiny_distilled_patch16_224",
        "deit3_small_patch16_224",
        "cait_xxs24_224",
        "vit_small_patch14_reg4_dinov2",
        "vit_betwixt_patch16_reg4_gap_256",
    ],
)
def test_every_family_of_teachers_can_be_masked(name):
    teacher = FrozenNetwork(name=name, patch_size=8, dim=32, depth=2, heads=2)
    for objective in (Manifold(tokens=9), Attention()):
        method = build(teacher=teacher, objective=objective)
        report = method(batch(), NOW, RNG)
        report["loss"].backward()
        assert report["loss"].isfinite() and report["mask_ratio"] == 0.5


def test_the_teacher_sees_what_the_student_attends_to_most():
    method = build(views=1).eval()
    with watched(method) as calls:
        method(batch(views=1), NOW, RNG)
    images, visible = calls[0]
    attention = method.student.backbone(images, attention=True)[1]["attention"]
    assert torch.equal(visible, attention.topk(8, dim=1).indices.sort(1).values)


def test_a_student_without_class_token_shows_what_its_tokens_attend_to_on_average():
    method = build(student="vit_base_patch16_gap_224", views=1).eval()
    with watched(method) as calls:
        method(batch(views=1), NOW, RNG)["loss"].backward()
    images, visible = calls[0]
    attention = cls_attention(method.student.backbone.vit, images)
    assert torch.equal(visible, attention.topk(8, dim=1).indices.sort(1).values)
    logits = method.student.head(method.student.backbone(images)[0])[0]
    expected = method.student.backbone.vit.forward_features(images).mean(1)
    assert torch.allclose(logits, method.student.head.cls(expected))


def test_class_and_distillation_token_choose_together_where_asked_to():
    student = {"student": "deit_tiny_distilled_patch16_224", "views": 1}
    chosen = []
    for row in ("cls", "mean"):
        method = build(**student, keep=Keep(count=5, row=row)).eval()
        with watched(method) as calls:
            method(batch(views=1), NOW, RNG)
        images, visible = calls[0]
        body = method.student.backbone
        _, extras = body(images, attention=True, attention_tokens=2 if row == "mean" else 1)
        assert torch.equal(visible, extras["attention"].topk(5, dim=1).indices.sort(1).values)
        chosen.append(visible)
    assert not torch.equal(*chosen)


def test_a_share_of_the_kept_patches_is_drawn_among_the_others():
    method = build(views=1, keep=Keep(count=8, random_share=Linear(start=0.0, end=1.0))).eval()
    for step, sure in ((0, 8), (5, 6), (10, 4)):
        with watched(method) as calls:
            report = method(batch(views=1), Progress(step, steps=20, steps_per_epoch=2), RNG)
        images, visible = calls[0]
        best = method.student.backbone(images, attention=True)[1]["attention"].argsort(1, descending=True)
        kept = [len(set(row) & set(top[:sure])) for row, top in zip(visible.tolist(), best.tolist())]
        assert kept == [sure] * len(visible)
        assert report["mask_ratio"] == 0.5


def test_a_teacher_can_have_the_colours_it_was_trained_on():
    half = FrozenNetwork(name="vit_base_patch16_224.augreg_in1k", patch_size=8, dim=32, depth=2, heads=2)
    seen = []
    for normalisation in ("crops", "own"):
        teacher = half.model_copy(update={"normalisation": normalisation})
        method = build(teacher=teacher, views=1).eval()
        method.teacher.network.patch_embed.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
        method.teacher(batch(views=1).crops["global"][0])
    levels = seen[0] * torch.tensor(IMAGENET_STD).view(3, 1, 1) + torch.tensor(IMAGENET_MEAN).view(3, 1, 1)
    assert torch.allclose(seen[1], (levels - 0.5) / 0.5, atol=1e-5)


def test_a_teacher_of_other_colours_is_remarked_on():
    ours = (IMAGENET_MEAN, IMAGENET_STD)
    augreg = FrozenNetwork(name="vit_base_patch16_224.augreg_in1k", pretrained=True)
    (sentence,) = augreg.remarks("method.teacher", colours=ours)
    assert "mean (0.5, 0.5, 0.5)" in sentence and "method.teacher.normalisation=own" in sentence
    assert augreg.model_copy(update={"normalisation": "own"}).remarks("method.teacher", colours=ours) == []
    assert FrozenNetwork(pretrained=True).remarks("method.teacher", colours=ours) == []


def test_nothing_calls_no_teacher_and_builds_none():
    method = build(objective=Nothing())
    assert not list(method.teacher.parameters())
    with watched(method) as calls:
        report = method(batch(), NOW, RNG)
    assert calls == [] and report["loss"] == report["base"]


@pytest.mark.parametrize(("keep", "seen"), [(Keep(), None), (Keep(ratio=1.0), None), (Keep(count=3), 3)])
def test_the_teacher_sees_as_many_patches_as_it_is_told(keep, seen):
    method = build(keep=keep)
    with watched(method) as calls:
        method(batch(), NOW, RNG)
    assert (None if calls[0][1] is None else calls[0][1].shape[1]) == seen


def test_the_share_of_kept_patches_follows_its_schedule():
    method = build(keep=Keep(ratio=Linear(start=1.0, end=0.5)))
    ratios = [
        method(batch(), Progress(step=step, steps=16, steps_per_epoch=4), RNG)["mask_ratio"].item()
        for step in (0, 8)
    ]
    assert ratios == [0.0, 0.25]


def test_student_and_teacher_get_the_same_mixed_and_erased_images():
    method = build(mixing=Mixing(mixup=0.8), erasing=Erasing(probability=1.0))
    given = batch()
    with watched(method) as calls:
        method(given, NOW, RNG)
    assert calls[0][0].shape == (8, 3, 32, 32)
    assert not torch.allclose(calls[0][0], given.crops["global"].flatten(0, 1))


def test_the_loss_weighs_labels_and_teacher_by_alpha():
    for alpha in (0.0, 0.3, 1.0):
        report = build(objective=Soft(alpha=alpha)).eval()(batch(), NOW, RNG)
        expected = (1 - alpha) * report["base"] + alpha * report["soft"]
        assert report["loss"].item() == pytest.approx(expected.item())


def test_attention_is_compared_where_the_teacher_looks_and_moves_the_students_queries_and_keys():
    method = build(objective=Attention(alpha=1.0, weight=3.0), views=1, mixing=Mixing()).eval()
    with watched(method) as calls:
        report = method(batch(views=1), NOW, RNG)
    images, visible = calls[0]
    ours = method.student.backbone(images, attention=True)[1]["attention"].gather(1, visible)
    theirs = method.teacher(images, visible, attention=True).attention
    ours, theirs = ours / ours.sum(1, keepdim=True), theirs / theirs.sum(1, keepdim=True)
    expected = 3 * (theirs * (theirs / ours).log()).sum(1).mean()
    assert report["attention"].item() == pytest.approx(expected.item())
    assert report["loss"].item() == pytest.approx((report["soft"] + report["attention"]).item())
    attention_loss(
        method.student.backbone(images, attention=True, attention_gradient=True)[1]["attention"],
        method.teacher(images, attention=True).attention,
    ).backward()
    last = method.student.backbone.vit.blocks[-1].attn.qkv.weight.grad
    width = len(last) // 3
    assert last[: 2 * width].abs().sum() > 0 and last[2 * width :].abs().sum() == 0


def test_a_student_that_attends_as_its_teacher_has_nothing_to_learn_from_it():
    rows = torch.rand(5, 9, dtype=torch.float64).softmax(1)
    assert attention_loss(rows * 0.7, rows).item() == pytest.approx(0, abs=1e-12)
    assert attention_loss(rows.flip(1), rows) > 0.01


def test_chunks_of_a_batch_choose_the_same_patches_as_the_whole():
    method = build(keep=Keep(ratio=0.5, guidance=0.5)).eval()
    whole = method(batch(6), NOW, RNG)
    parts = [method(part, NOW, RNG) for part in batch(6).chunks(2)]
    assert whole["masks"] == sum(part["masks"] for part in parts)
    assert whole["loss"].item() == pytest.approx(sum(part["loss"].item() for part in parts) / 3)


def test_a_distilled_student_learns_labels_and_teacher_with_two_tokens():
    method = build(student="deit_tiny_distilled_patch16_224", objective=Deit())
    method(batch(), NOW, RNG)["loss"].backward()
    assert method.student.head.cls.weight.grad.abs().sum() > 0
    assert method.student.head.dist.weight.grad.abs().sum() > 0
    labels_only = build(student="deit_tiny_distilled_patch16_224", objective=Deit(alpha=0.0))
    labels_only(batch(), NOW, RNG)["loss"].backward()
    assert labels_only.student.head.dist.weight.grad.abs().sum() == 0


def test_a_teacher_with_another_grid_is_given_mapped_scores():
    finer = TEACHER.model_copy(update={"patch_size": 4})
    method = build(teacher=finer, keep=Keep(ratio=0.5))
    with watched(method) as calls:
        report = method(batch(), NOW, RNG)
    assert calls[0][1].shape[1] == 32 and report["mask_ratio"] == 0.5
    larger = TEACHER.model_copy(update={"image_size": 48})
    assert build(teacher=larger)(batch(), NOW, RNG)["loss"].isfinite()


def test_a_convolutional_teacher_is_a_control_without_a_mask():
    method = build(teacher=FrozenNetwork(name="resnet10t"), keep=Keep())
    assert method(batch(), NOW, RNG)["loss"].isfinite()
    with pytest.raises(ValueError, match=r"let the teacher see everything \(method\.keep\.ratio=1\)"):
        build(teacher=FrozenNetwork(name="resnet10t"))


def test_a_teacher_made_for_one_size_of_images_teaches_when_they_are_resized_to_it():
    fixed = FrozenNetwork(name="eva02_tiny_patch14_224", image_size=224)
    method = build(teacher=fixed, keep=Keep(), views=1)
    report = method(batch(2, views=1), NOW, RNG)
    assert report["loss"].isfinite() and report["soft"] > 0


@pytest.mark.parametrize("kind", ["token", "drop", "pixel"])
def test_the_student_can_be_masked_as_a_baseline(kind):
    method = build(Mask(views="student_globals", kind=kind, ratio=0.5))
    with watched(method) as calls:
        method(batch(), NOW, RNG)["loss"].backward()
    assert calls[0][1].shape[1] == 8


def test_half_precision_scores_are_compared_in_single():
    method = build().float()
    given = batch()
    single = Batch({"global": given.crops["global"].float()}, *list(vars(given).values())[1:])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        report = method(single, NOW, RNG)
    report["loss"].backward()
    assert report["loss"].dtype == torch.float32


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"keep": Keep(count=17)}, "cannot keep 17 patches: the network has 16"),
        ({"keep": Keep(count=Linear(start=4, end=40))}, "cannot keep 40 patches"),
        ({"teacher": TEACHER.model_copy(update={"image_size": (32, 64)})}, "different aspect"),
        (
            {"teacher": TEACHER.model_copy(update={"patch_size": 4}), "objective": Manifold()},
            "same grid",
        ),
        ({"objective": Manifold(layers=((5, 0),))}, "the student has blocks 0 to 1"),
        ({"classes": None}, "method.classes is not known"),
        ({"mask": Mask(views="student_and_teacher")}, "chosen by method.keep"),
        ({"mask": Mask(strategy={"kind": "attention"})}, "the student runs first"),
        (
            {"mask": Mask(kind="drop"), "objective": Manifold()},
            "objective.kind=manifold compares both networks patch by patch",
        ),
        (
            {"mask": Mask(kind="drop"), "objective": Attention()},
            "objective.kind=attention compares both networks patch by patch",
        ),
        (
            {"teacher": TEACHER.model_copy(update={"patch_size": 4}), "objective": Attention()},
            "same grid",
        ),
        ({"keep": Keep(ratio=0.5, row="mean")}, "the student has only one of them"),
        (
            {
                "student": "deit_tiny_distilled_patch16_224",
                "objective": Attention(),
                "keep": Keep(ratio=0.5, row="mean"),
            },
            "ask for the attention of \\[CLS\\]",
        ),
        (
            {"teacher": FrozenNetwork(name="resnet18"), "objective": Attention(), "keep": Keep()},
            "a frozen ResNet has no tokens of patches .*, or set method.objective.kind=soft",
        ),
    ],
)
def test_a_setting_that_cannot_serve_gets_one_sentence(given, sentence):
    with pytest.raises(ValueError, match=sentence):
        build(**given)


def test_a_selector_is_needed_where_a_network_chooses():
    with pytest.raises(ValueError, match=r"method\.selector must say which one"):
        MaskedKD(keep=Keep(source="network"))


def test_an_untrained_teacher_is_said_to_be_one():
    assert "untrained" in build().remarks()[0]
    assert build(objective=Nothing()).remarks() == []


def test_a_step_is_the_same_again_and_the_teacher_stays_as_it_is():
    first, again = (build(mixing=Mixing(cutmix=1.0)) for _ in range(2))
    before = {name: tensor.clone() for name, tensor in first.teacher.state_dict().items()}
    assert first(batch(), NOW, RNG)["loss"] == again(batch(), NOW, RNG)["loss"]
    first.update_teacher(NOW)
    assert all(torch.equal(tensor, before[name]) for name, tensor in first.teacher.state_dict().items())
    assert isinstance(first.teacher, Frozen)
