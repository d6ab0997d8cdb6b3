"""Drives `train_step` through a recorded training run and compares what every step leaves."""

from collections.abc import Callable
from types import SimpleNamespace

import torch
from torch import Tensor, nn

from pipelines.batch import Batch
from raymask.center import Center
from raymask.heads import Head
from raymask.masks import Mask
from raymask.methods.dino import Dino, DinoMethod
from raymask.methods.patch import Patch
from raymask.official import (
    backbone_from_official,
    backbone_to_official,
    head_from_official,
    head_to_official,
)
from raymask.optim import Optim
from raymask.progress import Progress
from raymask.schedules import Cosine, Ramp
from raymask.step import train_step
from raymask.streams import Rng
from raymask.vit import Backbone
from tests.golden.batches import batch_of
from tests.golden.cases import Case, Deviation, compare

TOLERANCE = 1e-9
MakeMask = Callable[[int], Mask]


def backbone_settings(hyper: dict) -> Backbone:
    """The backbone of a case of DINO's or iBOT's training."""
    return Backbone(
        name="vit_small_patch16_224",
        image_size=hyper["img"],
        patch_size=hyper["patch"],
        dim=hyper["dim"],
        depth=hyper["depth"],
        heads=hyper["heads"],
        drop_path=hyper["drop_path"],
    )


def head_settings(case: Case) -> Head:
    """The head of such a case; its number of layers is that of its weights."""
    hyper = case.meta["hyper"]
    layers = [k for k, v in case.under("init/head.mlp.").items() if k.endswith("weight") and v.ndim == 2]
    return Head(
        nlayers=len(layers),
        hidden_dim=hyper["hidden"],
        bottleneck_dim=hyper["bottleneck"],
        out_dim=hyper["out_dim"],
        patch_dim=hyper["patch_out_dim"] if hyper.get("lambda2") and not hyper["shared_head"] else None,
        teacher_patches=_teacher_patches(case),
        norm_last_layer=hyper["norm_last_layer"],
    )


def _teacher_patches(case: Case) -> str:
    """Whether the case's teacher has a last layer of patches, where patches have an objective."""
    if not case.meta["hyper"].get("lambda2"):
        return "as_student"
    return "own" if any("last_layer2" in name for name in case.meta["teacher_names"]) else "shared"


def optim_settings(case: Case) -> Optim:
    """The optimiser of such a case, whose learning rate is scaled by another batch than it trains on."""
    hyper = case.meta["hyper"]
    return Optim(
        base_lr=hyper["lr"] * hyper["total_batch_for_lr"] / hyper["batch"],
        min_lr=hyper["min_lr"],
        warmup=hyper["warmup_epochs"] / hyper["epochs"],
        weight_decay=Cosine(start=hyper["weight_decay"], end=hyper["weight_decay_end"]),
        clip=hyper["clip_grad"] or None,
        freeze_last_layer=hyper["freeze_last_layer"],
    )


def patch_settings(case: Case) -> Patch | None:
    """The patch objective of such a case, if it counts."""
    hyper = case.meta["hyper"]
    if not hyper.get("lambda2"):
        return None
    temperature = Ramp(
        start=hyper["warmup_teacher_patch_temp"],
        end=hyper["teacher_patch_temp"],
        warmup=hyper["warmup_teacher_temp_epochs"] / hyper["epochs"],
        delay=hyper.get("pred_start_epoch", 0) / hyper["epochs"],
    )
    return Patch(weight=hyper["lambda2"], teacher_temperature=temperature)


def dino_settings(case: Case) -> Dino:
    """The objective of such a case."""
    hyper = case.meta["hyper"]
    return Dino(
        head=head_settings(case),
        cls_weight=hyper.get("lambda1", 1.0),
        patch=patch_settings(case),
        teacher_temperature=Ramp(
            start=hyper["warmup_teacher_temp"],
            end=hyper["teacher_temp"],
            warmup=hyper["warmup_teacher_temp_epochs"] / hyper["epochs"],
        ),
        momentum=Cosine(start=hyper["momentum_teacher"], end=1.0),
    )


def dino_method(case: Case, mask: Mask) -> DinoMethod:
    """The method of such a case in float64, student and teacher with the weights of step 0."""
    method = DinoMethod(dino_settings(case), backbone_settings(case.meta["hyper"]), mask, seed=0).double()
    state = case.under("init/", torch.float64)
    load_network(method.student, state)
    load_network(method.teacher, teachers_start(state, method))
    return method.train()


def teachers_start(state: dict[str, Tensor], method: DinoMethod) -> dict[str, Tensor]:
    """The teacher's weights of step 0: the student's, with a last layer of patches where it has one."""
    own = hasattr(method.teacher.head, "last_layer_patches")
    kept = {
        k: v for k, v in state.items() if not k.endswith("masked_embed") and (own or ".last_layer2." not in k)
    }
    if own and not any(".last_layer2." in k for k in kept):
        kept |= {
            k.replace(".last_layer.", ".last_layer2."): v for k, v in kept.items() if ".last_layer." in k
        }
    return kept


def load_network(network: nn.Module, state: dict[str, Tensor]) -> None:
    """Loads official names `backbone.*` and `head.*`, strictly."""
    parts = {
        part: {k.removeprefix(f"{part}."): v for k, v in state.items() if k.startswith(f"{part}.")}
        for part in ("backbone", "head")
    }
    network.backbone.load_state_dict(backbone_from_official(parts["backbone"]))
    network.head.load_state_dict(head_from_official(parts["head"]))


def official_parameters(network: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters of student or teacher under their official names."""
    found: dict[str, nn.Parameter] = {}
    for part, rename in (("backbone", backbone_to_official), ("head", head_to_official)):
        parameters = dict(getattr(network, part).named_parameters())
        found |= {f"{part}.{name}": parameter for name, parameter in rename(parameters).items()}
    return found


def recorded_batch(case: Case, step: int) -> Batch:
    """The crops of a recorded step."""
    views = case.under(f"crop/step{step}/view", torch.float64)
    crops = [views[name] for name in sorted(views, key=int)]
    local = {"local": torch.stack(crops[2:])} if crops[2:] else {}
    return batch_of({"global": torch.stack(crops[:2])} | local, step)


def run(
    case: Case, method: DinoMethod, *, before_step: Callable[[int], None] = lambda step: None
) -> list[SimpleNamespace]:
    """Trains `method` through all recorded steps; what each reported and left, by official names."""
    hyper, optim = case.meta["hyper"], optim_settings(case)
    optimiser = optim.build(method.student)
    norms: dict[str, Tensor] = {}
    for name, parameter in official_parameters(method.student).items():
        if parameter.requires_grad:
            parameter.register_post_accumulate_grad_hook(
                lambda p, name=name: norms.__setitem__(name, p.grad.norm())
            )
    done = []
    for step in range(hyper["epochs_run"] * hyper["iters"]):
        before_step(step)
        norms.clear()
        progress = Progress(step, steps=hyper["epochs"] * hyper["iters"], steps_per_epoch=hyper["iters"])
        report = train_step(
            method,
            recorded_batch(case, step),
            progress,
            Rng(seed=0, step=step),
            optimiser=optimiser,
            optim=optim,
        )
        found = {
            side: _checks(official_parameters(getattr(method, side)), case.meta[f"{side}_names"])
            for side in ("student", "teacher")
        }
        found |= {name: center.value.clone() for name, center in centers(method).items()}
        done.append(SimpleNamespace(report=report, norms=dict(norms), **found))
    return done


def centers(method: DinoMethod) -> dict[str, Center]:
    """The method's centers by their official names."""
    return {"center": method.center} | ({"center2": method.patch.center} if method.patch else {})


def compare_steps(case: Case, method: DinoMethod, done: list[SimpleNamespace]) -> list[Deviation]:
    """What every case records of its steps: rates, center, parameters."""
    found = [
        compare(name, torch.tensor([d.report[key] for d in done], dtype=torch.float64), case[name], TOLERANCE)
        for name, key in (("lr", "lr"), ("wd", "wd"), ("momentum", "momentum"))
    ]
    found += [
        compare(name, torch.stack([getattr(d, name) for d in done]), case[f"{name}_after_step"], TOLERANCE)
        for name in centers(method)
    ]
    for side in ("student", "teacher"):
        checks = torch.stack([getattr(d, side) for d in done])
        found.append(compare(f"{side} parameters", checks, case[f"{side}_checks"], TOLERANCE))
        final = case.under(f"final_{side}/")
        parameters = official_parameters(getattr(method, side))
        found += [
            compare(f"final {side} {name}", parameters[name].detach(), value, _rounding(value))
            for name, value in final.items()
        ]
    return found


def _checks(parameters: dict[str, nn.Parameter], names: list[str]) -> Tensor:
    """Sum, L2 norm and first element of each parameter."""
    assert set(names) == set(parameters), set(names) ^ set(parameters)
    tensors = [parameters[name].detach() for name in names]
    return torch.stack([torch.stack([t.sum(), t.norm(), t.flatten()[0]]) for t in tensors])


def _rounding(value: Tensor) -> float:
    """Final parameters are stored in float32: the deviation that rounding alone can make."""
    return TOLERANCE + float(value.abs().max()) * 2**-24
