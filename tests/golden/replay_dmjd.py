"""Replays of the DMJD cases (mx-mark/DMJD): masks, HOG, losses, forward, trajectories, learning rate."""

import torch
from torch import Tensor
from torch.nn.functional import layer_norm

from pipelines.crops import IMAGENET_MEAN, IMAGENET_STD
from raymask.hog import BINS, hog_cells, hog_target
from raymask.masks import Mask
from raymask.masks.disjoint import Disjoint, disjoint_order, hidden_from, plan, unit_patches
from raymask.methods.disjoint_views import Views
from raymask.methods.dmjd import Dmjd, adaptive_weight
from raymask.progress import Progress
from raymask.targets import Hog, hidden_loss, visible_loss
from tests.golden.autoencoders import (
    RecordedMae,
    autoencoder,
    decoder_shape,
    released_optim,
    replay_steps,
    views_of,
)
from tests.golden.cases import Case, Deviation, compare, replays
from tests.golden.closeness import close
from tests.golden.released_names import State

UNIT = {"rand": 1, "block": 2}
PAIRINGS = {"aligned": "aligned", "official": "released"}  # the cases' words and ours


def released_draws(noise: Tensor, perm_visible: Tensor, perm_hidden: Tensor) -> Tensor:
    """The draws of two views that say what the released permutations of view 1's slots say: [2, b, s]."""
    order = noise.argsort(dim=1, stable=True)
    rank = torch.cat([perm_visible.argsort(), len(perm_visible) + perm_hidden.argsort()]).to(noise)
    return torch.stack([noise, torch.zeros_like(noise).scatter(1, order, rank.expand_as(noise))])


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
    recipe = {key: hyper[f"{key}_epochs" if key == "warmup" else key] for key in ("epochs", "warmup")}
    for index, row in enumerate(hyper["rows"]):
        images = row["batch"] * row["accum"] * row["world"]
        strategy = Disjoint(prediction_rate=row["pred_ratio"])
        weight = adaptive_weight(Mask(strategy=strategy, ratio=row["mask_ratio"]), Progress(0, 1, 1))
        optim = released_optim(peak=row["blr"], batch=256, betas=(0.9, 0.95), wd=0.05, **recipe)
        rate = optim.lr(images * weight)
        found.append(Deviation(f"row {index}", abs(rate.peak / row["lr"] - 1), 1e-12))
    fine = 8_000_000  # steps of an epoch, so that a step stands for any fraction
    rate = released_optim(
        peak=hyper.get("peak", hyper["rows"][0]["lr"]), batch=256, betas=(0.9, 0.95), wd=0.05, **recipe
    ).lr(256)
    rates = [
        rate(Progress(round(epoch * fine), hyper["epochs"] * fine, fine)) for epoch in case["epoch"].tolist()
    ]
    assert hyper["min_lr"] == 0
    return [*found, compare("schedule", torch.tensor(rates, dtype=torch.float64), case["lr"], 1e-10)]


@replays("dmjd/forward")
def forward(case: Case) -> list[Deviation]:
    """Masks, the encoder's tokens, both branches' predictions and both losses of one forward pass."""
    hyper, tolerance = case.meta["hyper_parameters"], _tolerance(case)
    heads, images = (hyper["heads"], hyper["decoder"]["heads"]), colours(case["images_u8"])
    method = _method(case.under("w."), hyper, heads)
    views = _views(method, hyper, [case[name] for name in ("noise", "perm_vis", "perm_masked")])
    with torch.no_grad():
        tokens, (target, _) = method.encode(images, views), method.guide(images)
        head, losses = method.student.head, {}
        for name, pairing in PAIRINGS.items():
            method.settings = method.settings.model_copy(update={"pairing": pairing})
            losses[name] = method.objective(tokens, target.repeat(views.count, 1, 1), views)["loss"]
        return [
            compare("ids_keep", views.visible, case["ids_keep"]),
            compare("mask", views.hidden, case["mask"]),
            close("latent", tokens, case["latent"], **tolerance),
            close(
                "invisible branch",
                head.decoder(tokens, views.visible),
                case["pred_masked_branch"],
                **tolerance,
            ),
            close("visible branch", head.visible(tokens), case["pred_visible_branch"], **tolerance),
            *(close(f"loss {n}", loss, case[f"loss_{n}"], **tolerance) for n, loss in losses.items()),
        ]


@replays("dmjd/train")
def train(case: Case) -> list[Deviation]:
    """Every step of a training run, by the loop's own step."""
    hyper = case.meta["hyper_parameters"]
    model, recipe, rate = hyper["model"], hyper["optimizer"], hyper["lr_schedule"]
    method = _method(
        case.under("w0."),
        hyper,
        (model["heads"], model["decoder_heads"]),
        pairing="aligned" if "ALIGNED" in case.meta["what"] else "released",
        theta=hyper["theta"],
        loss=hyper["mim"],
        visible_loss=hyper["vis"],
        adaptive_lr=False,  # the case gives the peak that came of it
    )
    optim = released_optim(
        peak=rate["peak"],
        batch=case["images_u8"].shape[1],
        epochs=rate["epochs"],
        warmup=rate["warmup_epochs"],
        betas=tuple(recipe["betas"]),
        wd=recipe["weight_decay"],
    )
    steps, draws = hyper["steps"], zip(case["noise"], case["perm_vis"], case["perm_masked"])
    return replay_steps(
        case,
        method,
        optim,
        images=colours(case["images_u8"].flatten(0, 1)).unflatten(0, case["images_u8"].shape[:2]),
        views=[_views(method, hyper, list(drawn)) for drawn in draws],
        at=Progress(rate["epoch_of_this_run"] * steps, rate["epochs"] * steps, steps),
    )


def colours(levels: Tensor) -> Tensor:
    """Normalised float64 images [b, 3, h, w] of 8-bit ones [b, h, w, 3]."""
    mean, std = (torch.tensor(c, dtype=torch.float64) for c in (IMAGENET_MEAN, IMAGENET_STD))
    return ((levels.double() / 255 - mean) / std).permute(0, 3, 1, 2)


def _method(state: State, hyper: dict, heads: tuple[int, int], **settings: object) -> RecordedMae:
    """DMJD with these weights; heads of the encoder and of the decoder."""
    chosen = Dmjd(target=Hog(), decoder=decoder_shape(state, heads[1]), **settings)
    unit = UNIT[hyper["mask_type"]]
    return autoencoder(chosen, state, hyper["mask_ratio"], heads=heads[0], views=2, unit=unit)


def _views(method: RecordedMae, hyper: dict, drawn: list[Tensor]) -> Views:
    """Both views, from the draws of a case or of one of its steps."""
    rows, columns = method.student.backbone.native
    unit = UNIT[hyper["mask_type"]]
    return views_of(released_draws(*drawn), hyper["mask_ratio"], rows * columns, unit=unit)


def _tolerance(case: Case) -> dict[str, float]:
    return {"rtol": case.meta["tolerance"]["fp32_rtol"], "atol": case.meta["tolerance"]["fp32_atol"]}
