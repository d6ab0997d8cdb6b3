"""Replays of the DMJD cases (mx-mark/DMJD): masks, HOG, losses, forward, trajectories, learning rate."""

import torch
from torch import Tensor
from torch.nn.functional import layer_norm

from raymask.hog import BINS, hog_cells, hog_target
from raymask.masks.disjoint import disjoint_order, hidden_from, plan, unit_patches
from raymask.methods.dmjd import adaptive_lr
from raymask.targets import hidden_loss, visible_loss
from tests.golden.autoencoders import (
    Autoencoder,
    colours,
    descend,
    final_weights,
    joint_loss,
    released_convvit,
    released_optimiser,
    released_rate,
    weights_after,
)
from tests.golden.cases import Case, Deviation, compare, replays
from tests.golden.closeness import close
from tests.golden.released_names import State

UNIT = {"rand": 1, "block": 2}
CHECKS_ATOL = 1e-4  # a sum of weights can be near zero, where a relative tolerance says nothing


def released_draws(noise: Tensor, perm_visible: Tensor, perm_hidden: Tensor) -> Tensor:
    """The draws of two views that say what the released permutations of view 1's slots say: [2, b, s]."""
    order = noise.argsort(dim=1, stable=True)
    rank = torch.cat([perm_visible.argsort(), len(perm_visible) + perm_hidden.argsort()]).to(noise)
    return torch.stack([noise, torch.zeros_like(noise).scatter(1, order, rank.expand_as(noise))])


def released_visible(
    noise: Tensor, perm_visible: Tensor, perm_hidden: Tensor, ratio: float, patches: int, kind: str
) -> Tensor:
    """The visible patches of both views, view 1 first, in the released order: int64 [2b, k]."""
    unit, side = UNIT[kind], int(patches**0.5)
    counts = plan(noise.shape[1], ratio, 1.0, 2)
    order = disjoint_order(released_draws(noise, perm_visible, perm_hidden), counts).flatten(0, 1)
    return unit_patches(order[:, : counts.visible], (side, side), unit)


@replays("dmjd/masks")
def masks(case: Case) -> list[Deviation]:
    """Masks of two views given the draws, exactly."""
    hyper, found = case.meta["hyper_parameters"], []
    side = int(hyper["num_patches"] ** 0.5)
    for row in hyper["cases"]:
        draws = case.under(f"c{row['case']}.")
        counts = plan(draws["noise"].shape[1], row["mask_ratio"], row["pred_ratio"], 2)
        order = disjoint_order(
            released_draws(draws["noise"], draws["perm_vis"], draws["perm_masked"]), counts
        ).flatten(0, 1)
        unit = UNIT[hyper["mask_type"]]
        visible = unit_patches(order[:, : counts.visible], (side, side), unit)
        shuffle = torch.cat([visible, unit_patches(order[:, counts.visible :], (side, side), unit)], dim=1)
        name = f"case {row['case']}"
        found += [
            compare(f"{name} ids_keep", visible, draws["ids_keep"]),
            compare(f"{name} mask", hidden_from(visible, side * side), draws["mask"]),
            compare(f"{name} ids_restore", shuffle.argsort(dim=1), draws["ids_restore"]),
        ]
    return found


@replays("dmjd/hog")
def hog(case: Case) -> list[Deviation]:
    """HOG targets; every entry is held to the tolerance, since integer gradients have exact orientations."""
    images, atol = case["images_u8"].permute(0, 3, 1, 2), case.meta["tolerance"]["atol"]
    hyper = case.meta["hyper_parameters"]
    found = [compare("target", hog_target(images, hyper["patch"], hyper["cell"]), case["target"], atol)]
    cells = hog_cells(images, hyper["cell"])
    if "hog_raw" in case.tensors:
        found.append(compare("cells", cells, case["hog_raw"], atol))
    if "hog_whitened" in case.tensors:
        found.append(compare("whitened cells", layer_norm(cells, (BINS,)), case["hog_whitened"], atol))
    return found


@replays("dmjd/losses")
def losses(case: Case) -> list[Deviation]:
    """Both losses and their sum, in both pairings of visible patches."""
    tolerance, found = _tolerance(case), []
    visible, target = case["ids_keep"], case["target"].double().repeat(2, 1, 1)
    for index, row in enumerate(case.meta["hyper_parameters"]["rows"]):
        hidden_part = hidden_loss(case["pred"].double(), target, case["mask"].bool(), row["mim"])
        for name, paired in (("aligned", visible), ("official", visible.sort(dim=1).values)):
            loss = hidden_part + row["theta"] * visible_loss(
                case["pred_vis"].double(), target, paired, row["vis"]
            )
            found.append(close(f"row {index} {name}", loss, case[name][index], **tolerance))
    return found


@replays("dmjd/lr_rule")
def lr_rule(case: Case) -> list[Deviation]:
    """The adaptive learning rate, exactly; warm-up and cosine over the epochs."""
    hyper, found = case.meta["hyper_parameters"], []
    for index, row in enumerate(hyper["rows"]):
        images = row["batch"] * row["accum"] * row["world"]
        rate = adaptive_lr(
            row["blr"], images=images, prediction_rate=row["pred_ratio"], mask_ratio=row["mask_ratio"]
        )
        found.append(Deviation(f"row {index}", abs(rate / row["lr"] - 1), 1e-12))
    recipe = {"epochs": hyper["epochs"], "warmup": hyper["warmup_epochs"], "end": hyper["min_lr"]}
    peak = hyper.get("peak", hyper["rows"][0]["lr"])
    rates = [released_rate(epoch, peak=peak, **recipe) for epoch in case["epoch"].tolist()]
    return [*found, compare("schedule", torch.tensor(rates, dtype=torch.float64), case["lr"], 1e-10)]


@replays("dmjd/forward")
def forward(case: Case) -> list[Deviation]:
    """Masks, the encoder's tokens, both branches' predictions and both losses of one forward pass."""
    hyper, tolerance = case.meta["hyper_parameters"], _tolerance(case)
    network = _network(case.under("w."), hyper["heads"], hyper["decoder"]["heads"])
    visible = _visible(network, case, hyper)
    images = colours(case["images_u8"])
    with torch.no_grad():
        seen = network(images, visible)
    found = [
        compare("ids_keep", visible, case["ids_keep"]),
        compare("mask", hidden_from(visible, seen.predicted.shape[1]), case["mask"]),
        close("latent", seen.tokens, case["latent"], **tolerance),
        close("invisible branch", seen.predicted, case["pred_masked_branch"], **tolerance),
        close("visible branch", seen.visible, case["pred_visible_branch"], **tolerance),
    ]
    for name in ("aligned", "official"):
        loss = joint_loss(
            seen, images, visible, aligned=name == "aligned", mim="l2", vis="smooth_l1", theta=1.0
        )
        found.append(close(f"loss {name}", loss, case[f"loss_{name}"], **tolerance))
    return found


@replays("dmjd/train")
def train(case: Case) -> list[Deviation]:
    """Optimisation steps: loss, learning rate and checksums of parameters at each, then the final weights."""
    hyper, tolerance, found = case.meta["hyper_parameters"], case.meta["tolerance"], []
    model, recipe, plan_ = hyper["model"], hyper["optimizer"], hyper["lr_schedule"]
    network = _network(case.under("w0."), model["heads"], model["decoder_heads"])
    optimiser = released_optimiser(network, betas=tuple(recipe["betas"]), wd=recipe["weight_decay"])
    terms = {key: hyper[key] for key in ("mim", "vis", "theta")} | {"aligned": "ALIGNED" in case.meta["what"]}
    weights, moved = {"rtol": tolerance["checks_rtol"], "atol": CHECKS_ATOL}, 0.0
    for step in range(hyper["steps"]):
        visible = _visible(network, case, hyper, step)
        images = colours(case["images_u8"][step])
        loss = joint_loss(network(images, visible), images, visible, **terms)
        epoch = plan_["epoch_of_this_run"] + step / hyper["steps"]
        rate = released_rate(epoch, epochs=plan_["epochs"], warmup=plan_["warmup_epochs"], peak=plan_["peak"])
        descend(optimiser, loss, rate)
        moved += rate
        found += [
            close(f"step {step} loss", loss, case["losses"][step], rtol=tolerance["losses_rtol"], atol=0),
            Deviation(f"step {step} lr", abs(rate / float(case["lrs"][step]) - 1), 1e-12),
            *weights_after(network, hyper["param_names"], case["param_checks"][step], moved, **weights),
        ]
    return found + final_weights(network, case.under("wN."), **weights)


def _network(state: State, heads: int, decoder_heads: int) -> Autoencoder:
    return Autoencoder(released_convvit(state, heads=heads), state, heads=decoder_heads)


def _visible(network: Autoencoder, case: Case, hyper: dict, step: int | None = None) -> Tensor:
    """The visible patches of both views, from the draws of a case or of one of its steps."""
    draws = [
        case[name] if step is None else case[name][step] for name in ("noise", "perm_vis", "perm_masked")
    ]
    patches = network.encoder.vit.pos_embed.shape[1]
    return released_visible(*draws, hyper["mask_ratio"], patches, hyper["mask_type"])


def _tolerance(case: Case) -> dict[str, float]:
    return {"rtol": case.meta["tolerance"]["fp32_rtol"], "atol": case.meta["tolerance"]["fp32_atol"]}
