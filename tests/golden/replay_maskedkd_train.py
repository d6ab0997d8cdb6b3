"""Replays of MaskedKD's training: the method itself, a few steps, in float64."""

import re
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from pipelines.batch import Batch
from pipelines.crops import Crops, LocalCrops, MultiCrop
from raymask.frozen import FrozenNetwork
from raymask.masks import Mask, mask_signature
from raymask.masks.disjoint import hidden_from
from raymask.methods.kd_objectives import Hard, Soft
from raymask.methods.keep import Keep
from raymask.methods.maskedkd import MaskedKD, MaskedKDMethod
from raymask.mixing import Mixing
from raymask.progress import Progress
from raymask.streams import Rng
from raymask.vit import Backbone
from tests.golden.cases import Case, Deviation, replays
from tests.golden.closeness import close
from tests.golden.replay_maskedkd import timm_name

NAME = "deit_tiny_patch16_224"
TEACHERS = {"deit": NAME, "deit3": "deit3_small_patch16_224", "cait": "cait_xxs24_224"}
SMOOTHING = 0.1  # of labels that are not mixed, as in the released recipe; the cases do not write it down


@replays("maskedkd/train")
def replay_training(case: Case) -> list[Deviation]:
    """Losses, kept places, every parameter's sum and length after each step, and the last weights."""
    hyper, tolerance = case.meta["hyper_parameters"], case.meta["tolerance"]
    method = _method(case)
    student = dict(_named(method))
    optimiser = _adamw(student, hyper)
    losses, checks, found = [], [], []
    for step in range(hyper["steps"]):
        report = _step(method, case, step)
        optimiser.zero_grad()
        report["loss"].backward()
        optimiser.step()
        losses.append(report["loss"].detach())
        values = [student[name].detach() for name in hyper["param_names"]]
        checks.append(torch.stack([torch.stack([value.sum(), value.norm()]) for value in values]))
        kept = _signature(case, step)
        found.append(Deviation(f"kept at step {step}", 0.0 if report["masks"] == kept else float("inf"), 0.0))
    rtol = tolerance["checks_rtol"]
    found.append(
        close("losses", torch.stack(losses), case["losses"], rtol=tolerance["losses_rtol"], atol=0.0)
    )
    found += _checks(torch.stack(checks), case, rtol=rtol)
    for name, last in case.under("studentN.", torch.float64).items():
        gap = _without_key_bias(student[name].detach() - last, name)
        found.append(Deviation(f"last {name}", float(gap.norm() / last.norm()), rtol))
    return found


def _checks(checks: Tensor, case: Case, *, rtol: float) -> list[Deviation]:
    """Sums and lengths of all parameters. A sum of both signs comes near 0: its scale is the length.

    The bias of a key moves no output (softmax is blind to it): its gradient is rounding noise, of which AdamW
    makes steps of full size, so that it may differ by twice the way it can have gone.
    """
    hyper = case.meta["hyper_parameters"]
    free = torch.tensor([name.endswith("attn.qkv.bias") for name in hyper["param_names"]])
    way = 2 * hyper["optimizer"]["lr"] * torch.arange(1, hyper["steps"] + 1, dtype=torch.float64)
    dim = hyper["student"]["dim"]
    sums, lengths = (checks - case["param_checks"]).abs().unbind(-1)
    scale = rtol * case["param_checks"][..., 1]
    noise = way[:, None] * free
    return [
        Deviation("sums (share of the tolerance)", float((sums / (scale + noise * dim)).max()), 1.0),
        Deviation(
            "lengths (share of the tolerance)", float((lengths / (scale + noise * dim**0.5)).max()), 1.0
        ),
    ]


def _without_key_bias(gap: Tensor, name: str) -> Tensor:
    if not name.endswith("attn.qkv.bias"):
        return gap
    query, _, value = gap.chunk(3)
    return torch.cat([query, value])


def _method(case: Case) -> MaskedKDMethod:
    """The method with the case's weights, built from settings as a run builds it."""
    hyper = case.meta["hyper_parameters"]
    shapes = [{k: hyper[who][k] for k in ("dim", "depth", "heads")} for who in ("student", "teacher")]
    patch, size = hyper["student"]["patch"], hyper["student"]["img"]
    soft = hyper["distillation_type"] == "soft"
    settings = MaskedKD(
        classes=hyper["classes"],
        teacher=FrozenNetwork(name=TEACHERS[_family(case)], patch_size=patch, **shapes[1]),
        objective=Soft(alpha=hyper["alpha"], temperature=hyper["tau"])
        if soft
        else Hard(alpha=hyper["alpha"]),
        mixing=Mixing(smoothing=0.0 if case["targets"].is_floating_point() else SMOOTHING),
        keep=Keep(count=hyper["k"]) if hyper["maskedkd"] else Keep(),
    )
    crops = MultiCrop(
        global_crops=Crops(count=1, size=size, blur=0.0, solarise=0.0), local_crops=LocalCrops(count=0)
    )
    backbone = Backbone(name=NAME, image_size=size, patch_size=patch, drop_path=0.0, **shapes[0])
    method = MaskedKDMethod(settings, backbone, Mask(views="none"), crops, seed=0).double()
    taught = case.under("teacher.", torch.float64)
    rename = timm_name if _family(case) == "deit3" else str
    method.teacher.network.load_state_dict({rename(name): tensor for name, tensor in taught.items()})
    first = case.under("student0.", torch.float64)
    with torch.no_grad():
        for name, parameter in _named(method):
            parameter.copy_(first.pop(name))
    assert not first, f"the student has no {', '.join(first)}"
    return method.train()


def _family(case: Case) -> str:
    """Of which family the teacher is, in the case's words."""
    said = re.search(r"teacher=(\w+)", case.meta["what"])
    return said[1] if said else "deit"


def _named(method: MaskedKDMethod) -> Iterator[tuple[str, nn.Parameter]]:
    """The student's parameters by their official names."""
    yield from method.student.backbone.vit.named_parameters()
    for name, parameter in method.student.head.cls.named_parameters():
        yield f"head.{name}", parameter


def _adamw(student: dict[str, nn.Parameter], hyper: dict) -> torch.optim.Optimizer:
    """The recorded optimiser; timm's rule of what decays is in the case."""
    rule, still = hyper["optimizer"], set(hyper["no_decay_names"])
    groups = [
        {"params": [p for name, p in student.items() if (name in still) == bare], "weight_decay": decay}
        for bare, decay in ((False, rule["weight_decay"]), (True, 0.0))
    ]
    return torch.optim.AdamW(groups, lr=rule["lr"], betas=tuple(rule["betas"]), eps=rule["eps"])


def _step(method: MaskedKDMethod, case: Case, step: int) -> dict[str, Tensor]:
    images, targets = case["images"][step].double(), case["targets"][step]
    targets = targets.double() if targets.is_floating_point() else targets
    progress = Progress(step=step, steps=len(case["images"]), steps_per_epoch=1)
    return method.learn(images, targets, _batch(images, step), progress=progress, rng=Rng(seed=0, step=step))


def _batch(images: Tensor, step: int) -> Batch:
    who = torch.arange(len(images))
    return Batch({"global": images[None]}, who, who, torch.zeros_like(who), who, step, len(images), 0)


def _signature(case: Case, step: int) -> Tensor:
    """The signature of the recorded masks, which tells every kept place."""
    kept, patches = case["kept_ids_sorted"][step], case.meta["hyper_parameters"]["num_patches"]
    if kept.shape[1] == patches:
        return torch.zeros((), dtype=torch.int64)
    who = torch.arange(len(kept))
    return mask_signature(hidden_from(kept, patches), torch.zeros_like(who), who, 0)
