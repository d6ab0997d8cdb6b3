"""Replays of the MaskedKD cases (effl-lab/MaskedKD, DeiT, manifold distillation): selection, networks,
losses, steps.

All is computed in float64; where the case was recorded in float32, its stated relative and absolute
tolerances hold.
"""

from functools import partial

import torch
from timm.models.cait import Cait
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from pipelines.repeats import repeated_order
from raymask.backbone import VisionBackbone
from raymask.distillation import base_loss, combine, manifold_terms
from raymask.epoch_cosine import EpochCosine
from raymask.masks.select import keep_highest, patch_scores
from raymask.methods.kd_objectives import Deit, Hard, Lesson, Soft
from raymask.progress import Progress
from raymask.streams import Rng
from raymask.teachers import Frozen, cls_attention
from raymask.vit import Backbone
from tests.golden.cases import Case, Deviation, compare, replays

LAYER_NORM = partial(nn.LayerNorm, eps=1e-6)


def _near(case: Case, what: str, got: Tensor, expected: Tensor, *, share: str = "fp32") -> Deviation:
    """The largest deviation as a share of what the case allows: atol + rtol |expected|."""
    rtol = case.meta["tolerance"].get(f"{share}_rtol", 0.0)
    atol = case.meta["tolerance"].get(f"{share}_atol", 0.0)
    if got.shape != expected.shape:
        return Deviation(what, float("inf"), 1.0)
    gap = (got.detach().double() - expected.double()).abs() / (atol + rtol * expected.double().abs())
    return Deviation(f"{what} (share of the tolerance)", float(gap.max()), 1.0)


def _exactly(what: str, got: Tensor, expected: Tensor) -> Deviation:
    return compare(what, got, expected, 0.0)


def _vit(state: dict[str, Tensor], *, image: int, heads: int, deit3: bool = False) -> VisionTransformer:
    """timm's own class with the weights of a case, in float64; its shape is read off the weights."""
    state = {timm_name(name): tensor for name, tensor in state.items()} if deit3 else state
    vit = VisionTransformer(
        img_size=image,
        patch_size=tuple(state["patch_embed.proj.weight"].shape[-2:]),
        embed_dim=state["norm.weight"].numel(),
        depth=_depth(state, "blocks"),
        num_heads=heads,
        num_classes=state["head.weight"].shape[0],
        mlp_ratio=state["blocks.0.mlp.fc1.weight"].shape[0] / state["norm.weight"].numel(),
        norm_layer=LAYER_NORM,
        init_values=1e-5 if deit3 else None,
        no_embed_class=deit3,
    ).double()
    vit.load_state_dict(state)
    return vit


def _student(state: dict[str, Tensor], *, image: int, heads: int) -> VisionBackbone:
    """The backbone that trains, with the weights of a case and its classifier, in float64."""
    dim, patch = state["norm.weight"].numel(), state["patch_embed.proj.weight"].shape[-1]
    settings = Backbone(
        name="deit_tiny_patch16_224",
        image_size=image,
        patch_size=patch,
        dim=dim,
        depth=_depth(state, "blocks"),
        heads=heads,
        mlp_ratio=state["blocks.0.mlp.fc1.weight"].shape[0] / dim,
        drop_path=0.0,
    )
    body = settings.build(seed=0, classes=state["head.weight"].shape[0]).double()
    body.vit.load_state_dict(state)
    return body


def _cait(state: dict[str, Tensor], *, image: int, heads: int) -> Cait:
    cait = Cait(
        img_size=image,
        patch_size=state["patch_embed.proj.weight"].shape[-1],
        embed_dim=state["norm.weight"].numel(),
        depth=_depth(state, "blocks"),
        depth_token_only=_depth(state, "blocks_token_only"),
        num_heads=heads,
        num_classes=state["head.weight"].shape[0],
        norm_layer=LAYER_NORM,
    ).double()
    cait.load_state_dict(state)
    return cait


def _depth(state: dict[str, Tensor], blocks: str) -> int:
    return 1 + max(int(name.split(".")[1]) for name in state if name.startswith(f"{blocks}."))


def timm_name(name: str) -> str:
    """timm's name of DeiT III's layer-scale vectors."""
    return name.replace("gamma_1", "ls1.gamma").replace("gamma_2", "ls2.gamma")


@replays("maskedkd/select_topk")
def replay_selection(case: Case) -> list[Deviation]:
    """Scores, kept places as sets, and the masks they mean."""
    scores = patch_scores(case["attn"].double())
    found = [compare("scores", scores, case["scores"], 1e-6)]
    for count in case.meta["hyper_parameters"]["ks"]:
        kept = keep_highest(scores, count)
        hidden = torch.ones_like(case[f"masked_k{count}"]).scatter_(1, kept, False)
        found.append(_exactly(f"kept {count}", kept, case[f"ids_sorted_k{count}"]))
        found.append(_exactly(f"masked {count}", hidden, case[f"masked_k{count}"]))
    return found


@replays("maskedkd/student_forward")
def replay_student(case: Case) -> list[Deviation]:
    """Logits of the full image, the last block's attention row, and what it keeps."""
    hyper = case.meta["hyper_parameters"]
    state, images = case.under("w.", torch.float64), case["images"].double()
    body = _student(state, image=hyper["img"], heads=hyper["heads"])
    vit: VisionTransformer = body.vit
    tokens, extras = body(images, attention=True)
    row = patch_scores(case["attn_last"].double())
    found = [
        _near(case, "logits", vit.forward_head(tokens), case["logits"]),
        _near(case, "attention of each head", extras["attention_heads"], case["attn_last"][:, :, 0, 1:]),
        _near(case, "attention", extras["attention"], row),
        _near(case, "attention of a frozen network", cls_attention(vit, images), row),
    ]
    kept = [(k, keep_highest(extras["attention"], k), case[f"ids_k{k}"].sort(1).values) for k in hyper["ks"]]
    return found + [_exactly(f"kept {k}", got, expected) for k, got, expected in kept]


@replays("maskedkd/teacher_masked")
def replay_teacher(case: Case) -> list[Deviation]:
    """Logits from the kept patches alone, and from all."""
    hyper = case.meta["hyper_parameters"]
    build = {"deit": _vit, "deit3": partial(_vit, deit3=True), "cait": _cait}[hyper["kind"]]
    teacher = Frozen(build(case.under("w.", torch.float64), image=hyper["img"], heads=hyper["heads"]))
    images = case["images"].double()
    found = [_near(case, "all patches", teacher(images).logits, case["logits_full"])]
    for k in hyper["ks"]:
        got = teacher(images, case[f"ids_k{k}"]).logits
        found.append(_near(case, f"{k} patches", got, case[f"logits_k{k}"]))
    return found


@replays("maskedkd/kd_losses")
def replay_losses(case: Case) -> list[Deviation]:
    """Soft and hard distillation beside each base loss, and the length of the gradient."""
    losses, lengths = [], []
    for row in case.meta["hyper_parameters"]["rows"]:
        student, teacher = case["student_logits"].double().requires_grad_(), case["teacher_logits"].double()
        chosen = {"soft": Soft, "hard": Hard}[row["type"]](
            alpha=row["alpha"], **({"temperature": row["tau"]} if row["type"] == "soft" else {})
        )
        loss = _distilled(chosen, _base(row["base"], student, case), student, teacher)
        losses.append(loss)
        lengths.append(torch.autograd.grad(loss, student)[0].norm())
    return [
        _near(case, "losses", torch.stack(losses), case["loss_values"]),
        _near(case, "gradients", torch.stack(lengths), case["grad_l2"]),
    ]


def _base(name: str, student: Tensor, case: Case) -> Tensor:
    if name == "soft_ce":
        return base_loss(student, case["soft_labels"].double())
    return base_loss(
        student, case["labels"], smoothing=float(name.removeprefix("ls_ce") if name != "ce" else 0)
    )


def _distilled(objective: Soft | Hard | Deit, base: Tensor, student: Tensor, teacher: Tensor) -> Tensor:
    """The loss that an objective makes of a base loss and of the logits that are distilled."""
    now = Progress(0, 1, 1)
    terms = objective.terms(Lesson(student, teacher), now, Rng(0, 0))
    return combine(base, torch.stack(list(terms.values())).sum(), alpha=objective.alpha(now))


@replays("maskedkd/deit_token_losses")
def replay_deit_losses(case: Case) -> list[Deviation]:
    """The class token's base loss and the distillation token's, DeiT's way."""
    cls, dist, teacher = (case[name].double() for name in ("cls_logits", "dist_logits", "teacher_logits"))
    base, losses = base_loss(cls, case["labels"]), []
    for row in case.meta["hyper_parameters"]["rows"]:
        soft = {"temperature": row["tau"], "hard": False}
        chosen = Deit(alpha=row["alpha"], **({} if row["type"] == "hard" else soft))
        losses.append(base if row["type"] == "none" else _distilled(chosen, base, dist, teacher))
    return [_near(case, "losses", torch.stack(losses), case["loss_values"])]


@replays("maskedkd/manifold_loss")
def replay_manifold(case: Case) -> list[Deviation]:
    """The three terms of each layer, and their weighted means."""
    hyper, terms = case.meta["hyper_parameters"], []
    for layer in range(len(case["per_layer"])):
        tokens = [case[f"{who}_{layer}"].double() for who in ("student", "teacher")]
        terms.append(manifold_terms(*tokens, chosen=case[f"perm_{layer}"][: hyper["K"]]))
    each = torch.stack([torch.stack([t.patch, t.sample, t.random]) for t in terms])
    weights = torch.tensor([hyper["w_sample"], hyper["w_patch"], hyper["w_rand"]])
    total = sum(
        t.weighted(patch=hyper["w_patch"], sample=hyper["w_sample"], random=hyper["w_rand"]) for t in terms
    )
    expected = case["weighted_sample_patch_rand"]
    return [
        _near(case, "terms", each, case["per_layer"]),
        _near(case, "means", each.mean(0)[[1, 0, 2]] * weights, expected),
        _near(case, "total", total / len(terms), expected.sum()),
    ]


@replays("maskedkd/lr_schedule")
def replay_lr(case: Case) -> list[Deviation]:
    """The learning rate of each epoch: float64 to 1e-9 of itself."""
    hyper = case.meta["hyper_parameters"]
    schedule = EpochCosine(
        start=hyper["warmup_lr"],
        peak=hyper["base_lr"] * hyper["global_batch"] / 512,
        end=hyper["min_lr"],
        warmup=hyper["warmup_epochs"] / hyper["epochs"],
    )
    steps = 3 * hyper["epochs"]
    values = [schedule(Progress(step=step, steps=steps, steps_per_epoch=3)) for step in range(steps)]
    expected = case["lr_per_epoch"].repeat_interleave(3)
    return [compare("learning rates", torch.tensor(values, dtype=torch.float64), expected, 1e-12)]


@replays("maskedkd/repeated_aug_sampler")
def replay_repeats(case: Case) -> list[Deviation]:
    """The samples of each rank, given the official permutation of the epoch."""
    hyper, found = case.meta["hyper_parameters"], []
    for row in hyper["rows"]:
        drawn = torch.randperm(row["n"], generator=torch.Generator().manual_seed(row["epoch"]))
        order = repeated_order(
            drawn.numpy(), repeats=hyper["num_repeats"], rank=row["rank"], world=row["replicas"]
        )
        name = f"{row['case']}_rank{row['rank']}"
        found.append(_exactly(f"case {name}", torch.from_numpy(order), case[f"idx_{name}"]))
    return found
