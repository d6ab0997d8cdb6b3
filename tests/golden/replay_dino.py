"""Replays of DINO: loss, schedules, parameter groups, training."""

import torch
from torch import Tensor

from raymask.heads import Head
from raymask.losses import cross_view_loss, mean_over_pairs, moved_center, teacher_targets
from raymask.masks import Mask
from raymask.methods.method import Network
from raymask.optim import Optim, group
from raymask.progress import Progress
from raymask.schedules import Cosine, Ramp
from raymask.vit import Backbone
from tests.golden.cases import Case, Deviation, compare, replays
from tests.golden.training import TOLERANCE, compare_steps, dino_method, official_parameters, run


@replays("dino/loss")
def replay_loss(case: Case) -> list[Deviation]:
    """Consecutive calls: value, gradient on the logits, center. Logits are rows of an identity layer."""
    hyper = case.meta["hyper"]
    center, eye = case["center_initial"][0], torch.eye(hyper["out_dim"], dtype=torch.float64)
    temperature = temperature_ramp(hyper, hyper["nepochs"])
    found = [
        compare(
            "teacher temperature",
            over_epochs(temperature, hyper["nepochs"]),
            case["teacher_temp_schedule"],
            1e-15,
        )
    ]
    for call, epoch in enumerate(hyper["epochs_of_calls"]):
        student = case[f"student_{call}"].clone().requires_grad_()
        progress = Progress(step=epoch, steps=hyper["nepochs"], steps_per_epoch=1)
        targets = teacher_targets(case[f"teacher_{call}"], eye, center, temperature=temperature(progress))
        terms = cross_view_loss(
            student.unflatten(0, (-1, hyper["batch"])),
            eye,
            targets.probabilities.unflatten(0, (hyper["n_global"], -1)),
            temperature=hyper["student_temp"],
        )
        loss = mean_over_pairs(terms)
        (gradient,) = torch.autograd.grad(loss, student)
        rows = len(targets.probabilities)
        center = moved_center(center, targets.logit_sum, rows, momentum=hyper["center_momentum"])
        found += [
            compare(f"loss of call {call}", loss.detach(), case["loss"][call], 1e-10),
            compare(f"gradient of call {call}", gradient, case[f"grad_student_{call}"], 1e-10),
            compare(f"center after call {call}", center, case["center_after"][call], 1e-10),
        ]
    return found


@replays("dino/schedules")
def replay_schedules(case: Case) -> list[Deviation]:
    """Learning rate, weight decay and momentum of every step; teacher temperature of every epoch."""
    hyper = case.meta["hyper"]
    epochs, steps = hyper["epochs"], hyper["epochs"] * hyper["iters_per_epoch"]
    optim = Optim(
        base_lr=hyper["base_lr"], min_lr=hyper["min_lr"], warmup=hyper["warmup_epochs"] / hyper["epochs"]
    )
    schedules = {
        "lr": optim.lr(hyper["total_batch"]).model_copy(update={"start": hyper["start_warmup_value"]}),
        "weight_decay": Cosine(start=hyper["weight_decay"], end=hyper["weight_decay_end"]),
        "momentum": Cosine(start=hyper["momentum_teacher"], end=1.0),
    }
    moments = [Progress(step, steps, hyper["iters_per_epoch"]) for step in range(steps)]
    found = [
        compare(name, torch.tensor([schedule(p) for p in moments], dtype=torch.float64), case[name], 1e-15)
        for name, schedule in schedules.items()
    ]
    temperature = over_epochs(temperature_ramp(hyper, epochs), epochs)
    return [*found, compare("teacher temperature", temperature, case["teacher_temp_per_epoch"], 1e-15)]


@replays("dino/param_groups")
def replay_paramofficial_groups(case: Case) -> list[Deviation]:
    """Which group each parameter falls into, by name: the deviation counts wrong ones."""
    found = []
    for flags, expected in case.meta["cases"].items():
        given = dict(flag.split("=") for flag in flags.split(","))
        head = Head(
            hidden_dim=8,
            bottleneck_dim=8,
            out_dim=8,
            norm_last_layer=given["norm_last_layer"] == "True",
            batch_norm=given["use_bn"] == "True",
        )
        blocks = {name.split(".")[2] for name in expected if name.startswith("backbone.blocks.")}
        body = Backbone(dim=48, heads=3, depth=len(blocks)).build(seed=0)
        wrong = official_groups(Network(body, head.build(48, seed=0))).items() ^ expected.items()
        found.append(Deviation(flags, float(len(wrong)), 0.0))
    return found


@replays("dino/train")
def replay_train(case: Case) -> list[Deviation]:
    """Every step of a training run without masks."""
    method = dino_method(case, Mask(views="none"))
    done = run(case, method)
    norms = torch.stack([torch.stack([d.norms[n] for n in case.meta["grad_norm_names"]]) for d in done])
    return [
        compare("loss", torch.stack([d.report["loss"] for d in done]), case["loss"], TOLERANCE),
        compare("gradient norms", norms, case["grad_norm_per_tensor"], TOLERANCE),
        *compare_steps(case, method, done),
    ]


def temperature_ramp(hyper: dict, epochs: int) -> Ramp:
    """DINO's teacher temperature."""
    return Ramp(
        start=hyper["warmup_teacher_temp"],
        end=hyper["teacher_temp"],
        warmup=hyper["warmup_teacher_temp_epochs"] / epochs,
    )


def over_epochs(schedule: Ramp, epochs: int) -> Tensor:
    """The schedule's value in each epoch."""
    return torch.tensor(
        [schedule(Progress(e, epochs, steps_per_epoch=1)) for e in range(epochs)], dtype=torch.float64
    )


def official_groups(network: Network) -> dict[str, str]:
    """The official name of each parameter, and the official name of its group."""
    names = {id(parameter): name for name, parameter in official_parameters(network).items()}
    found = dict.fromkeys(names.values(), "not_optimised")
    for decays, members in group(network).items():
        found |= {names[id(p)]: "weight_decay" if decays else "no_decay" for _, p in members}
    return found
