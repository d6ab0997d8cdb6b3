"""Replays of MaskedKD's training: the method itself, a few steps, in float64."""

import re

import torch
from torch import Tensor

from pipelines.batch import Batch
from pipelines.crops import Crops, LocalCrops, MultiCrop
from raymask.frozen import FrozenNetwork
from raymask.masks import Mask, mask_signature
from raymask.masks.disjoint import hidden_from
from raymask.methods.kd_objectives import Hard, Soft
from raymask.methods.keep import Keep
from raymask.methods.maskedkd import MaskedKD, MaskedKDMethod
from raymask.mixing import Mixing
from raymask.optim import Optim
from raymask.progress import Progress
from raymask.schedules import Constant
from raymask.step import train_step
from raymask.streams import Rng
from raymask.vit import Backbone
from tests.golden.batches import batch_of
from tests.golden.cases import Case, Deviation, replays
from tests.golden.closeness import close
from tests.golden.parameters import State, after_step, at_last
from tests.golden.replay_maskedkd import timm_name

NAME = "deit_tiny_patch16_224"
TEACHERS = {"deit": NAME, "deit3": "deit3_small_patch16_224", "cait": "cait_xxs24_224"}
SMOOTHING = 0.1  # of labels that are not mixed, as in the released recipe; the cases do not write it down


class Recorded(MaskedKDMethod):
    """MaskedKD on images that were mixed already, and their targets."""

    targets: Tensor

    def augment(self, batch: Batch, rng: Rng) -> tuple[Tensor, Tensor]:
        return batch.crops["global"].flatten(0, 1), self.targets


@replays("maskedkd/train")
def replay_training(case: Case) -> list[Deviation]:
    """Losses, kept places, every parameter's sum and length after each step, and the last weights."""
    hyper, tolerance = case.meta["hyper_parameters"], case.meta["tolerance"]
    method, optim, found = _method(case), _optim(hyper), []
    optimiser, student = optim.build(method.student), _official(method)
    assert _without_decay(optimiser, student) == set(hyper["no_decay_names"])
    for step in range(hyper["steps"]):
        targets = case["targets"][step]
        method.targets = targets.double() if targets.is_floating_point() else targets
        batch = batch_of({"global": case["images"][step].double()[None]}, step)
        now = Progress(step, hyper["steps"], 1)
        report = train_step(method, batch, now, Rng(0, step), optimiser=optimiser, optim=optim)
        kept = float("inf") if report["masks"] != _signature(case, step) else 0.0
        found += [
            Deviation(f"kept at step {step}", kept, 0.0),
            close(
                f"loss of step {step}",
                report["loss"],
                case["losses"][step],
                rtol=tolerance["losses_rtol"],
                atol=0,
            ),
            *after_step(
                {name: student[name].detach() for name in hyper["param_names"]},
                case["param_checks"][step],
                moved=optim.base_lr * len(targets) / 256 * (step + 1),
                rtol=tolerance["checks_rtol"],
                step=step,
            ),
        ]
    last = {name: parameter.detach() for name, parameter in student.items()}
    return found + at_last(last, case.under("studentN."), rtol=tolerance["checks_rtol"])


def _method(case: Case) -> Recorded:
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
    method = Recorded(settings, backbone, Mask(views="none"), crops, seed=0).double()
    taught = case.under("teacher.", torch.float64)
    rename = timm_name if _family(case) == "deit3" else str
    method.teacher.network.load_state_dict({rename(name): tensor for name, tensor in taught.items()})
    first = case.under("student0.", torch.float64)
    with torch.no_grad():
        for name, parameter in _official(method).items():
            parameter.copy_(first.pop(name))
    assert not first, f"the student has no {', '.join(first)}"
    return method.train()


def _family(case: Case) -> str:
    """Of which family the teacher is, in the case's words."""
    said = re.search(r"teacher=(\w+)", case.meta["what"])
    return said[1] if said else "deit"


def _official(method: MaskedKDMethod) -> State:
    """The student's parameters by their official names."""
    body, head = method.student.backbone.vit, method.student.head.cls
    return dict(body.named_parameters()) | {f"head.{name}": p for name, p in head.named_parameters()}


def _optim(hyper: dict) -> Optim:
    """The recorded optimiser, at one learning rate throughout."""
    rule = hyper["optimizer"]
    return Optim(
        base_lr=rule["lr"] * 256 / hyper["batch"],
        min_lr=rule["lr"],
        lr_rule="mae",
        warmup=0.0,
        weight_decay=Constant(value=rule["weight_decay"]),
        decay_tokens=False,
        betas=tuple(rule["betas"]),
        eps=rule["eps"],
        clip=None,
        freeze_last_layer=0,
    )


def _without_decay(optimiser: torch.optim.Optimizer, student: State) -> set[str]:
    """The official names of the parameters that are not decayed."""
    bare = {id(p) for group in optimiser.param_groups if not group["decays"] for p in group["params"]}
    return {name for name, parameter in student.items() if id(parameter) in bare}


def _signature(case: Case, step: int) -> Tensor:
    """The signature of the recorded masks, which tells every kept place."""
    kept, patches = case["kept_ids_sorted"][step], case.meta["hyper_parameters"]["num_patches"]
    if kept.shape[1] == patches:
        return torch.zeros((), dtype=torch.int64)
    who = torch.arange(len(kept))
    return mask_signature(hidden_from(kept, patches), torch.zeros_like(who), who, 0)
