"""Replays of the MAE cases (facebookresearch/mae) and of ConvMAE's forward."""

import re

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from raymask.masks.disjoint import disjoint_order, hidden_from, plan
from raymask.sincos import resized, sincos_positions
from raymask.targets import hidden_loss, normalised, patchify
from tests.golden.autoencoders import (
    Autoencoder,
    descend,
    final_weights,
    released_convvit,
    released_optimiser,
    released_rate,
    released_vit,
    weights_after,
)
from tests.golden.cases import Case, Deviation, compare, replays
from tests.golden.closeness import close

HEADS = 4  # of encoder and decoder, where a case does not say
TABLE_ROWS = re.compile(r"rows ::(\d+)")
RATE = re.compile(
    r"epoch (?P<first>\d+)\+step/\d+ of (?P<epochs>\d+), warm-up (?P<warmup>\d+), peak (?P<peak>[\d.e-]+)"
)
CHECKS_RTOL, CHECKS_ATOL = 0.01, 1e-4  # the cases state none for checksums: those of the DMJD cases


@replays("mae/sincos_2d")
def sincos(case: Case) -> list[Deviation]:
    """The fixed positions, in float64."""
    found = []
    notes = {entry.split()[0]: entry for entry in case.meta["hyper_parameters"]["cases"]}
    for name, table in case.tensors.items():
        dim, side, cls = (int(number) for number in re.findall(r"\d+", name))
        every = TABLE_ROWS.search(notes.get(name, ""))
        got = sincos_positions(dim, (side, side), prefix=cls)[:: int(every[1]) if every else 1]
        found.append(compare(name, got, table, 1e-9))
    return found


@replays("mae/pos_embed_interpolate")
def interpolation(case: Case) -> list[Deviation]:
    """A table of positions at another size."""
    before, after = case["inp"][0], case["out"][0]
    native, grid = ((int((len(table) - 1) ** 0.5),) * 2 for table in (before, after))
    got = torch.cat([before[:1], resized(before[1:], native, grid)])
    return [close("positions", got, after, **_tolerance(case))]


@replays("mae/forward")
def forward(case: Case) -> list[Deviation]:
    """Masks, latents, predictions and losses at every mask ratio."""
    hyper, tolerance = case.meta["hyper_parameters"], _tolerance(case)
    state, images = case.under("w."), case["images"].double()
    network = Autoencoder(released_vit(state, heads=hyper["heads"]), state, heads=hyper["dec"]["heads"])
    patches = patchify(images, hyper["patch"])
    target = normalised(patches) if hyper["norm_pix_loss"] else patches
    found = [close("patchified", patches, case["patchified"], **tolerance)]
    for ratio in hyper["mask_ratios"]:
        row = case.under(f"r{round(ratio * 100)}.")
        order, visible = released_order(row["noise"], ratio)
        with torch.no_grad():
            seen = network(images, visible)
        hidden = hidden_from(visible, order.shape[1])
        found += [
            compare(f"{ratio} mask", hidden, row["mask"]),
            compare(f"{ratio} ids_restore", order.argsort(dim=1), row["ids_restore"]),
            close(f"{ratio} latent", seen.tokens, row["latent"], **tolerance),
            close(f"{ratio} prediction", seen.predicted, row["pred"], **tolerance),
            close(
                f"{ratio} loss", hidden_loss(seen.predicted, target, hidden, "l2"), row["loss"], **tolerance
            ),
        ]
    return found


@replays("mae/convmae_forward")
def convmae(case: Case) -> list[Deviation]:
    """ConvMAE's forward: masks, tokens, predictions and loss."""
    hyper, tolerance = case.meta["hyper_parameters"], _tolerance(case)
    state = case.under("w.")
    network = Autoencoder(
        released_convvit(state, heads=hyper.get("heads", HEADS)),
        state,
        heads=hyper.get("decoder_heads", HEADS),
    )
    side = network.encoder.native[0] * network.encoder.patch_size[0]
    small = case["images_small_u8"].permute(0, 3, 1, 2).double() / 255
    images = interpolate(small, size=(side, side), mode="bilinear", align_corners=False) * 2 - 1
    order, visible = released_order(case["noise"], hyper["mask_ratio"])
    with torch.no_grad():
        seen = network(images, visible)
    hidden = hidden_from(visible, order.shape[1])
    loss = hidden_loss(seen.predicted, _target(case, images, network.encoder.patch_size[0]), hidden, "l2")
    return [
        compare("mask", hidden, case["mask"]),
        compare("ids_restore", order.argsort(dim=1), case["ids_restore"]),
        close("latent", seen.tokens, case["latent"], **tolerance),
        close("prediction", seen.predicted[:, ::7], case["pred_every7th_patch"], **tolerance),
        close("loss", loss, case["loss"], **tolerance),
    ]


@replays("mae/train")
def train(case: Case) -> list[Deviation]:
    """Optimisation steps: loss, learning rate and checksums of parameters at each, then the final weights."""
    hyper, found, state = case.meta["hyper_parameters"], [], case.under("w0.")
    heads = hyper.get("heads", HEADS)
    network = Autoencoder(released_vit(state, heads=heads), state, heads=heads)
    optimiser = released_optimiser(network, betas=(0.9, 0.95), wd=0.05)
    ratio = float(re.search(r"ratio ([\d.]*\d)", case.meta["what"])[1])
    steps, moved = len(case["losses"]), 0.0
    weights = {"rtol": CHECKS_RTOL, "atol": CHECKS_ATOL}
    for step in range(steps):
        images = case["images"][step].double()
        order, visible = released_order(case["noise"][step], ratio)
        target = _target(case, images, network.encoder.patch_size[0])
        seen = network(images, visible)
        loss = hidden_loss(seen.predicted, target, hidden_from(visible, order.shape[1]), "l2")
        rate = _rate(hyper["lr"], step / steps)
        descend(optimiser, loss, rate)
        moved += rate
        found += [
            close(
                f"step {step} loss",
                loss,
                case["losses"][step],
                rtol=case.meta["tolerance"]["losses_rtol"],
                atol=0,
            ),
            Deviation(f"step {step} lr", abs(rate / float(case["lrs"][step]) - 1), 1e-12),
            *weights_after(network, hyper["param_names"], case["param_checks"][step], moved, **weights),
        ]
    return found + final_weights(network, case.under("wN."), **weights)


def released_order(noise: Tensor, ratio: float) -> tuple[Tensor, Tensor]:
    """MAE's shuffle of the patches, visible ones first, and the visible ones."""
    counts = plan(noise.shape[1], ratio, 1.0, 1)
    order = disjoint_order(noise[None], counts)[0]
    return order, order[:, : counts.visible]


def _tolerance(case: Case) -> dict[str, float]:
    return {"rtol": case.meta["tolerance"]["fp32_rtol"], "atol": case.meta["tolerance"]["fp32_atol"]}


def _target(case: Case, images: Tensor, patch: int) -> Tensor:
    """The pixels to predict, normalised where the case says so."""
    patches = patchify(images, patch)
    return normalised(patches) if "norm_pix=True" in case.meta["what"] else patches


def _rate(plan: str, done: float) -> float:
    """The learning rate after a share of the recorded epoch, from the case's words about it."""
    said = RATE.match(plan)
    assert said is not None, plan
    first, epochs, warmup = (int(said[name]) for name in ("first", "epochs", "warmup"))
    return released_rate(first + done, epochs=epochs, warmup=warmup, peak=float(said["peak"]))
