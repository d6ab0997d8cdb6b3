"""Replays of AttMask and iBOT: masks, head, losses, parameter groups, training."""

from math import exp
from typing import Any

import torch
from torch import Tensor

from raymask.heads import Head
from raymask.losses import cross_view_loss, mean_over_pairs, moved_center, patch_loss, teacher_targets
from raymask.masks import Mask, Masks, mask_signature
from raymask.masks.attention import AttentionStrategy, revealed
from raymask.masks.block import ASPECT, LIMIT, TRIES, block_masks
from raymask.masks.hide import hide_top
from raymask.methods.method import Network
from raymask.methods.patch import hidden_patches
from raymask.official import load_official_head
from raymask.progress import Progress
from raymask.schedules import Ramp
from raymask.streams import Rng, uniforms
from raymask.vit import Backbone
from tests.golden.cases import Case, Deviation, compare, replays
from tests.golden.replay_dino import official_groups, over_epochs
from tests.golden.training import TOLERANCE, compare_steps, dino_method, run


@replays("attmask/masks")
def masks(case: Case) -> list[Deviation]:
    """High, Low and Hint from one attention row, masked with a probability; exact."""
    return [
        compare(call["key"], _mask(case.under(f"{call['key']}/"), call), case[f"{call['key']}/mask"])
        for call in case.meta["calls"]
    ]


def _mask(given: dict, call: dict) -> Tensor:
    """The official mask from an attention row and the draws that were logged with it."""
    attention = given["attention"]
    scores = -attention if call["mode"] == "attmask_low" else attention
    hidden = hide_top(scores, int(attention.shape[1] * call["masking_ratio"]))
    hidden = hidden & (given["u_masking_prob"] <= call["masking_prob"])[:, None]
    if (
        given.get("revealed_idx") is not None
    ):  # ours reveals the highest draws, so give those to the official choice
        draws = torch.zeros(attention.shape, dtype=torch.float64).scatter(1, given["revealed_idx"], 0.5)
        hidden = hidden & ~revealed(attention, draws, call["show_max"], call["show_ratio"])
    return hidden


@replays("attmask/masks_per_image")
def masks_per_image(case: Case) -> list[Deviation]:
    """Another ratio for each row; exact."""
    attention, patches = case["attention"], case["attention"].shape[1]
    counts = (case["ratio"].double() * patches).long()
    return [
        compare("high", hide_top(attention, counts), case["mask_attmask_high"]),
        compare("low", hide_top(-attention, counts), case["mask_attmask_low"]),
    ]


@replays("attmask/block_masks")
def block(case: Case) -> list[Deviation]:
    """Block-wise masks, exactly, from the official draws; and the distribution of counts from ours."""
    hyper, grid = case.meta["hyper"], tuple(case.meta["hyper"]["grid"])
    assert hyper["min_block_area"] == (min(grid) // 3) ** 2
    assert hyper["attempts"] == TRIES
    assert abs(hyper["aspect"][0] - exp(ASPECT[0])) < 1e-12
    deviations = [
        compare(f"mask {i}", _replayed_block(draws, grid), case["masks"][i])
        for i, draws in enumerate(case.meta["draws"])
    ]
    ours = _our_counts(hyper, grid, len(case["counts_3000"]))
    return [
        *deviations,
        Deviation("Kolmogorov-Smirnov of counts", _ks(ours, case["counts_3000"]), _ks_limit(len(ours))),
    ]


def _replayed_block(draws: list, grid: tuple[int, int]) -> Tensor:
    """The mask that the logged calls of Python's random make: draws of the ratio, the choice, then tries."""
    choice = next(i for i, call in enumerate(draws) if call[0] == "choice")
    budget = torch.tensor([draws[choice][2] * grid[0] * grid[1]], dtype=torch.float64)
    tries: list[list[float]] = []
    for name, bounds, value in draws[choice + 1 :]:
        low, high = bounds
        if name == "uniform":
            if not tries or len(tries[-1]) != 1:
                tries.append([])
            tries[-1].append((value - low) / (high - low))
        else:  # randint: any draw inside its cell
            tries[-1].append((value - low + 0.5) / (high - low + 1))
    table = torch.full((1, max(1, len(tries)), 4), 0.5, dtype=torch.float64)
    for i, row in enumerate(tries):
        table[0, i, : len(row)] = torch.tensor(row, dtype=torch.float64)
    return block_masks(table, budget if tries else budget * 0, grid)[0]


def _our_counts(hyper: dict, grid: tuple[int, int], rows: int) -> Tensor:
    keys = Rng(seed=0, step=0).per_sample("golden", torch.zeros(rows, dtype=torch.int64), torch.arange(rows))
    draws = uniforms(keys, 2 + LIMIT * 4)
    means, spreads = (torch.tensor(hyper[k], dtype=torch.float64) for k in ("pred_ratio", "pred_ratio_var"))
    which = (draws[:, 0] * len(means)).long()
    ratios = means[which] + spreads[which] * (2 * draws[:, 1] - 1)
    return block_masks(draws[:, 2:].unflatten(1, (-1, 4)), ratios * grid[0] * grid[1], grid).sum((1, 2))


def _ks(one: Tensor, other: Tensor) -> float:
    """The largest distance between two empirical distribution functions."""
    values = torch.cat([one, other]).unique()
    shares = [(sample[:, None] <= values).double().mean(0) for sample in (one, other)]
    return float((shares[0] - shares[1]).abs().max())


def _ks_limit(count: int, alpha: float = 1e-3) -> float:
    """The critical value of the two-sample Kolmogorov-Smirnov test at `alpha`, for equal sizes."""
    return float((-torch.tensor(alpha / 2).log() / count).sqrt())


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
    centers = [case[name].flatten() for name in ("center_initial", "center2_initial")]
    for call, epoch in enumerate(hyper["epochs"]):
        temperatures = [ramp(Progress(epoch, epochs, 1)) for ramp in ramps.values()]
        deviations, centers = _loss_call(case, call, temperatures, centers)
        found += deviations
    return found


def _loss_call(
    case: Case, call: int, temperatures: list[float], centers: list[Tensor]
) -> tuple[list[Deviation], list[Tensor]]:
    hyper, given = case.meta["hyper"], case.under(f"c{call}/", torch.float64)
    eyes = [torch.eye(len(center), dtype=torch.float64) for center in centers]
    names = [n for n in ("student_cls", "student_local_cls", "student_patch") if n in given]
    leaves = {name: given[name].clone().requires_grad_() for name in names}
    cls = torch.cat([leaves[n] for n in names if n.endswith("cls")]).unflatten(0, (-1, hyper["batch"]))
    tau = hyper["student_temp"]
    taught = teacher_targets(given["teacher_cls"], eyes[0], centers[0], temperature=temperatures[0])
    probabilities = taught.probabilities.unflatten(0, (hyper["n_global"], -1))
    cls_term = mean_over_pairs(cross_view_loss(cls, eyes[0], probabilities, temperature=tau))
    hidden = hidden_patches(given["masks"].flatten(2).bool())
    patches = given["teacher_patch"].flatten(0, 1)
    answers = teacher_targets(patches, eyes[1], centers[1], temperature=temperatures[1])
    rows = leaves["student_patch"].flatten(0, 1)[hidden.places]
    chosen = answers.probabilities[hidden.places]
    patch_term = (
        patch_loss(rows, eyes[1], chosen, hidden.weights, temperature=tau) if len(rows) else rows.sum()
    )
    terms = hyper["lambda1"] * cls_term, hyper["lambda2"] * patch_term
    gradients = torch.autograd.grad(sum(terms), list(leaves.values()))
    momentum = hyper["center_momentum"]
    sums = ((taught.logit_sum, len(taught.probabilities)), (answers.logit_sum, len(patches)))
    moved = [moved_center(c, total, count, momentum=momentum) for c, (total, count) in zip(centers, sums)]
    values = torch.stack([sum(terms), *terms]).detach()
    return [
        compare(f"losses of call {call}", values, case["loss_cls_patch"][call], 1e-10),
        *(compare(f"gradient {n} {call}", g, given[f"grad_{n}"], 1e-10) for n, g in zip(leaves, gradients)),
        compare(f"center of call {call}", moved[0], given["center_after"].flatten(), 1e-10),
        compare(f"patch center of call {call}", moved[1], given["center2_after"].flatten(), 1e-10),
    ], moved


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
        return _mask(given, call | {"mode": self._hyper["pred_shape"]})
