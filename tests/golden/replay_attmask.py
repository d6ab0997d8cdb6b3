"""Replays of AttMask and iBOT: head, losses, parameter groups, training."""

from typing import Any

import torch
from torch import Tensor

from raymask.center import Center
from raymask.heads import DinoHead, Head
from raymask.losses import cross_view_loss, mean_over_pairs, teacher_targets
from raymask.masks import Mask, Masks, mask_signature
from raymask.masks.attention import AttentionStrategy
from raymask.methods.method import Network
from raymask.methods.patch import Patch, PatchObjective, hidden_patches
from raymask.official import load_official_head
from raymask.progress import Progress
from raymask.schedules import Ramp
from raymask.vit import Backbone
from tests.golden.cases import Case, Deviation, compare, replays
from tests.golden.replay_attmask_masks import official_mask
from tests.golden.replay_dino import official_groups, over_epochs
from tests.golden.training import TOLERANCE, compare_steps, dino_method, run


@replays("attmask/ibot_head")
def head(case: Case) -> list[Deviation]:
    """[CLS] and patches through one MLP and their last layers."""
    hyper = case.meta["hyper"]
    shape = Head(
        hidden_dim=hyper["hidden_dim"],
        bottleneck_dim=hyper["bottleneck_dim"],
        out_dim=hyper["out_dim"],
        patch_dim=None if hyper["shared_head"] else hyper["patch_out_dim"],
    )
    ours = shape.build(hyper["in_dim"], seed=0).double()
    state = case.under("param/", torch.float64)
    if hyper["shared_head"]:  # one module under two names
        state = {name: value for name, value in state.items() if not name.startswith("last_layer2")}
    load_official_head(ours, state)
    x, alone = case["x"].double(), case["x_cls_only"].double()
    patches = ours.bottleneck(x[:, 1:].flatten(0, 1)) @ ours.patch_weight().T
    return [
        compare("cls", ours(x[:, 0]), case["cls"], 1e-10),
        compare("patch", patches.unflatten(0, case["patch"].shape[:2]), case["patch"], 1e-10),
        compare("cls alone", ours(alone), case["cls_only"], 1e-10),
    ]


@replays("attmask/ibot_loss")
def loss(case: Case) -> list[Deviation]:
    """Consecutive calls: losses, gradients on logits, centers. Logits are rows of identity layers."""
    hyper = case.meta["hyper"]
    epochs, start = hyper["nepochs"], hyper["pred_start_epoch"]
    warmup = hyper["warmup_teacher_temp_epochs"] / epochs
    ramps = {
        "teacher_temp": Ramp(start=hyper["warmup_teacher_temp"], end=hyper["teacher_temp"], warmup=warmup),
        "teacher_patch_temp": Ramp(
            start=hyper["warmup_teacher_patch_temp"],
            end=hyper["teacher_patch_temp"],
            warmup=warmup,
            delay=start / epochs,
        ),
    }
    found = [compare(name, over_epochs(ramp, epochs), case[name], 1e-15) for name, ramp in ramps.items()]
    settings = Patch(
        weight=hyper["lambda2"],
        teacher_temperature=ramps["teacher_patch_temp"],
        center_momentum=hyper["center_momentum"],
    )
    center, eye = _center(case["center_initial"], hyper), IdentityHead(case["center2_initial"].numel())
    patch = PatchObjective(settings, _center(case["center2_initial"], hyper))
    for call, epoch in enumerate(hyper["epochs"]):
        now = Progress(epoch, epochs, 1)
        terms, leaves = _loss_terms(case, call, now, ramps["teacher_temp"](now), center, patch, eye)
        given = case.under(f"c{call}/", torch.float64)
        gradients = torch.autograd.grad(sum(terms), list(leaves.values()))
        values = torch.stack([sum(terms), *terms]).detach()
        pairs = {"center": center, "center2": patch.center}
        found += [
            compare(f"losses of call {call}", values, case["loss_cls_patch"][call], 1e-10),
            *(
                compare(f"gradient {n} {call}", g, given[f"grad_{n}"], 1e-10)
                for n, g in zip(leaves, gradients)
            ),
            *(
                compare(f"{name} of call {call}", moved.value, given[f"{name}_after"].flatten(), 1e-10)
                for name, moved in pairs.items()
            ),
        ]
    return found


class IdentityHead(DinoHead):
    """A head of rows that are logits already."""

    def __init__(self, prototypes: int) -> None:
        torch.nn.Module.__init__(self)
        self.prototypes = torch.eye(prototypes, dtype=torch.float64)

    def bottleneck(self, tokens: Tensor) -> Tensor:
        return tokens

    def patch_weight(self) -> Tensor:
        return self.prototypes


def _center(initial: Tensor, hyper: dict) -> Center:
    center = Center(initial.numel(), momentum=hyper["center_momentum"]).double()
    center.value.copy_(initial.flatten())
    return center


def _loss_terms(
    case: Case,
    call: int,
    now: Progress,
    temperature: float,
    center: Center,
    patch: PatchObjective,
    head: IdentityHead,
) -> tuple[tuple[Tensor, Tensor], dict[str, Tensor]]:
    """The weighted terms of [CLS] and patches, and the logits they depend on; moves both centers."""
    hyper, given = case.meta["hyper"], case.under(f"c{call}/", torch.float64)
    names = [n for n in ("student_cls", "student_local_cls", "student_patch") if n in given]
    leaves = {name: given[name].clone().requires_grad_() for name in names}
    cls = torch.cat([leaves[n] for n in names if n.endswith("cls")]).unflatten(0, (-1, hyper["batch"]))
    eye, tau = torch.eye(len(center.value), dtype=torch.float64), hyper["student_temp"]
    taught = teacher_targets(given["teacher_cls"], eye, center.value, temperature=temperature)
    center.add(taught.logit_sum, len(taught.probabilities))
    probabilities = taught.probabilities.unflatten(0, (hyper["n_global"], -1))
    cls_term = mean_over_pairs(cross_view_loss(cls, eye, probabilities, temperature=tau))
    hidden = hidden_patches(given["masks"].flatten(2).bool())
    patches = given["teacher_patch"].unflatten(0, (hyper["n_global"], -1))
    targets = patch.targets(head, patches, hidden, now)
    rows = leaves["student_patch"].flatten(0, 1)[hidden.places]
    patch_term = patch.loss(rows, head.patch_weight(), targets, hidden, temperature=tau)
    for moved in (center, patch.center):
        moved.move()
    return (hyper["lambda1"] * cls_term, patch.settings.weight * patch_term), leaves


@replays("attmask/param_groups")
def param_groups(case: Case) -> list[Deviation]:
    """Which group each parameter falls into, by name: the deviation counts wrong ones."""
    found = []
    for flags, expected in case.meta["cases"].items():
        given = dict(flag.split("=") for flag in flags.split(","))
        shape = Head(
            hidden_dim=8,
            bottleneck_dim=8,
            out_dim=8,
            norm_last_layer=given["norm_last_layer"] == "True",
            patch_dim=None if given["shared_head"] == "True" else 8,
        )
        depth = len({name.split(".")[2] for name in expected if name.startswith("backbone.blocks.")})
        body = Backbone(dim=48, heads=3, depth=depth).build(seed=0, mask_token=True)
        wrong = official_groups(Network(body, shape.build(48, seed=0))).items() ^ expected.items()
        found.append(Deviation(flags, float(len(wrong)), 0.0))
    return found


@replays("attmask/train")
def train(case: Case) -> list[Deviation]:
    """Every step of a training run: losses, centers, parameters, and for AttMask attention and masks.

    The center of the patch objective is not compared where that objective has no weight: then we have none.
    """
    mask = Logged.of(case)
    method = dino_method(case, mask)
    done = run(case, method, before_step=lambda step: mask.turn_to(case, step))
    reports = [d.report for d in done]
    names = ("loss", "loss_cls", "loss_patch") if method.patch else ("loss",)
    losses = torch.stack([torch.stack([report[name] for name in names]) for report in reports])
    return [
        compare("losses", losses, case["loss_cls_patch"][:, : len(names)], TOLERANCE),
        *mask.found,
        *compare_steps(case, method, done),
    ]


class Logged(Mask):
    """The mask policy of a recorded run: its masks; for AttMask also ours from the logged draws."""

    _found: list[Deviation]
    _hidden: Tensor
    _attention: Tensor
    _draws: dict
    _hyper: dict

    @classmethod
    def of(cls, case: Case) -> "Logged":
        mode = case.meta["hyper"]["pred_shape"]
        mask = cls(strategy=AttentionStrategy() if mode.startswith("attmask") else {"kind": "random"})
        mask._found, mask._hyper = [], case.meta["hyper"]
        return mask

    @property
    def found(self) -> list[Deviation]:
        """What was compared in all steps so far."""
        return self._found

    def turn_to(self, case: Case, step: int) -> None:
        """The masks of the next draws, [views, batch, patches], and the draws that made them."""
        self._hidden = case[f"mask/step{step}"].flatten(2).bool()
        if self.is_guided:
            self._attention, self._draws = case[f"cls_attention/step{step}"], case.meta["draws"][step]

    def draw(self, epochs: Tensor, samples: Tensor, *, scores: Tensor | None = None, **_: Any) -> Masks:
        if scores is not None:
            rows = scores.flatten(0, 1)
            self._found += [
                compare("attention", rows, self._attention, TOLERANCE),
                compare("mask", self._ours(rows).view_as(self._hidden), self._hidden),
            ]
        signed = [mask_signature(h, epochs, samples, view) for view, h in enumerate(self._hidden)]
        return Masks(self._hidden, 0, torch.stack(signed).sum())

    def _ours(self, attention: Tensor) -> Tensor:
        call = self._hyper | self._draws
        chosen = self._draws["revealed_idx"]
        given = {
            "attention": attention,
            "u_masking_prob": torch.tensor(self._draws["u_masking_prob"]),
            "revealed_idx": None if chosen is None else torch.tensor(chosen),
        }
        return official_mask(given, call | {"mode": self._hyper["pred_shape"]})
