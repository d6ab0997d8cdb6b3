"""Replays of the MAE cases (facebookresearch/mae) and of ConvMAE's forward."""

import re

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from raymask.masks.disjoint import disjoint_order, plan
from raymask.methods.mae import Mae, MaeMethod
from raymask.progress import Progress
from raymask.sincos import resized, sincos_positions
from raymask.targets import Pixels, patchify
from tests.golden.autoencoders import autoencoder, decoder_shape, released_optim, replay_steps, views_of
from tests.golden.cases import Case, Deviation, compare, replays
from tests.golden.closeness import close
from tests.golden.released_names import State

HEADS = 4  # of encoder and decoder, where a case does not say
TABLE_ROWS = re.compile(r"rows ::(\d+)")
RATE = re.compile(
    r"epoch (?P<first>\d+)\+step/\d+ of (?P<epochs>\d+), warm-up (?P<warmup>\d+), peak (?P<peak>[\d.e-]+)"
)


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
    heads, images = (hyper["heads"], hyper["dec"]["heads"]), case["images"].double()
    found = [close("patchified", patchify(images, hyper["patch"]), case["patchified"], **tolerance)]
    for ratio in hyper["mask_ratios"]:
        row = case.under(f"r{round(ratio * 100)}.")
        method = _method(case.under("w."), ratio, heads, normalise=hyper["norm_pix_loss"])
        seen = _forward(method, images, row["noise"], ratio)
        found += [
            *_masks(f"{ratio} ", seen, row),
            close(f"{ratio} latent", seen["tokens"], row["latent"], **tolerance),
            close(f"{ratio} prediction", seen["predicted"], row["pred"], **tolerance),
            close(f"{ratio} loss", seen["loss"], row["loss"], **tolerance),
        ]
    return found


@replays("mae/convmae_forward")
def convmae(case: Case) -> list[Deviation]:
    """ConvMAE's forward: masks, tokens, predictions and loss."""
    hyper, tolerance = case.meta["hyper_parameters"], _tolerance(case)
    heads, ratio = (hyper.get("heads", HEADS), hyper.get("decoder_heads", HEADS)), hyper["mask_ratio"]
    method = _method(case.under("w."), ratio, heads, normalise="norm_pix=True" in case.meta["what"])
    small = case["images_small_u8"].permute(0, 3, 1, 2).double() / 255
    size = (method.crops.global_crops.height, method.crops.global_crops.width)
    images = interpolate(small, size=size, mode="bilinear", align_corners=False) * 2 - 1
    seen = _forward(method, images, case["noise"], ratio)
    return [
        *_masks("", seen, case.tensors),
        close("latent", seen["tokens"], case["latent"], **tolerance),
        close("prediction", seen["predicted"][:, ::7], case["pred_every7th_patch"], **tolerance),
        close("loss", seen["loss"], case["loss"], **tolerance),
    ]


@replays("mae/train")
def train(case: Case) -> list[Deviation]:
    """Every step of a training run, by the loop's own step."""
    hyper, words, steps = case.meta["hyper_parameters"], case.meta["what"], len(case["losses"])
    ratio = float(re.search(r"ratio ([\d.]*\d)", words)[1])
    said = RATE.match(hyper["lr"])
    assert said is not None, hyper["lr"]
    first, epochs, warmup = (int(said[name]) for name in ("first", "epochs", "warmup"))
    images, heads = case["images"].double(), (hyper.get("heads", HEADS),) * 2
    optim = released_optim(
        peak=float(said["peak"]),
        batch=images.shape[1],
        epochs=epochs,
        warmup=warmup,
        betas=(0.9, 0.95),  # as the case says in words
        wd=0.05,
    )
    return replay_steps(
        case,
        _method(case.under("w0."), ratio, heads, normalise="norm_pix=True" in words),
        optim,
        images=images,
        views=[views_of(noise[None], ratio, noise.shape[1]) for noise in case["noise"]],
        at=Progress(first * steps, epochs * steps, steps),
    )


def _method(state: State, ratio: float, heads: tuple[int, int], *, normalise: bool) -> MaeMethod:
    """MAE with these weights; heads of the encoder and of the decoder."""
    settings = Mae(target=Pixels(normalise=normalise), decoder=decoder_shape(state, heads[1]))
    return autoencoder(settings, state, ratio, heads=heads[0])


@torch.no_grad()
def _forward(method: MaeMethod, images: Tensor, noise: Tensor, ratio: float) -> dict[str, Tensor]:
    """The order of the patches, visible ones first, and what the parts of the method make of the images."""
    order = disjoint_order(noise[None], plan(noise.shape[1], ratio, 1.0, 1))[0]
    views = views_of(noise[None], ratio, noise.shape[1])
    tokens, (target, _) = method.encode(images, views), method.guide(images)
    return {
        "order": order,
        "hidden": views.hidden,
        "tokens": tokens,
        "predicted": method.student.head.decoder(tokens, views.visible),
        "loss": method.objective(tokens, target, views)["loss"],
    }


def _masks(name: str, seen: dict[str, Tensor], expected: dict[str, Tensor]) -> list[Deviation]:
    return [
        compare(f"{name}mask", seen["hidden"], expected["mask"]),
        compare(f"{name}ids_restore", seen["order"].argsort(dim=1), expected["ids_restore"]),
    ]


def _tolerance(case: Case) -> dict[str, float]:
    return {"rtol": case.meta["tolerance"]["fp32_rtol"], "atol": case.meta["tolerance"]["fp32_atol"]}
