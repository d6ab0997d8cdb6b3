"""Replays of the backbone, the head and the random masks."""

import torch
from torch import Tensor

from raymask.heads import Head
from raymask.masks import hidden_count, hide_top, random_scores
from raymask.official import load_official_backbone, load_official_head
from raymask.vit import Backbone, VisionBackbone
from tests.golden.cases import Case, Deviation, compare, replays

TOLERANCE = 1e-9


def _near(what: str, got: Tensor, expected: Tensor) -> Deviation:
    return compare(what, got.detach(), expected, TOLERANCE)


def build(case: Case, *, drop_path: float = 0.0, mask_token: bool = False) -> VisionBackbone:
    """The backbone of a case, in float64, with its weights."""
    hyper = case.meta["hyper"]
    settings = Backbone(
        name="vit_small_patch16_224",
        image_size=hyper["img_size"],
        patch_size=hyper["patch_size"],
        dim=hyper["embed_dim"],
        depth=hyper["depth"],
        heads=hyper["num_heads"],
        mlp_ratio=hyper.get("mlp_ratio", 4),
        drop_path=drop_path,
    )
    backbone = settings.build(seed=0, mask_token=mask_token).double()
    load_official_backbone(backbone, case.under("param/", torch.float64))
    return backbone


@replays("dino/vit")
def replay_vit(case: Case) -> list[Deviation]:
    """Tokens, attention and positions at several sizes, and drop path from recorded draws."""
    backbone = build(case)
    return [d for size in case.meta["hyper"]["sizes"] for d in _replay_size(case, backbone, *size)] + [
        _replay_drop_path(case)
    ]


def _replay_size(case: Case, backbone: VisionBackbone, height: int, width: int) -> list[Deviation]:
    size = f"{height}x{width}"
    depth = backbone.depth
    stored = sorted(
        int(k.split("_")[1][4:])
        for k in case.tensors
        if k.startswith("inter_last") and k.endswith(f"_{size}")
    )
    tokens, extras = backbone(
        case[f"x_{size}"].double(), attention=True, last=max(stored), blocks=tuple(range(depth))
    )
    _, positions = backbone.positions(backbone.grid(height, width))
    table = torch.cat([backbone.vit.pos_embed[0, :1], positions])[None]
    found = [
        _near(f"cls {size}", tokens[:, 0], case[f"cls_{size}"]),
        _near(f"attention {size}", extras["attention"], case[f"cls_attention_mean_{size}"]),
        _near(
            f"attention of heads {size}",
            extras["attention_heads"],
            case[f"attn_last_{size}"][:, :, 0, 1:],
        ),
        _near(f"positions {size}", table, case[f"pos_embed_{size}"]),
    ]
    for back in stored:
        expected = case[f"inter_last{back}_{size}"]
        got = backbone.vit.norm(extras["blocks"][depth - back])
        found.append(_near(f"tokens of block -{back} {size}", got, expected))
        found.append(_near(f"cls of block -{back} {size}", extras["cls"][-back], expected[:, 0]))
    return found


def _replay_drop_path(case: Case) -> Deviation:
    hyper = case.meta["hyper"]
    backbone = build(case, drop_path=hyper["droppath_rate_last"])
    recorded = case["droppath_draws"]
    drop = torch.zeros(backbone.depth, 2, recorded.shape[1], dtype=torch.float64)
    drop[[rate > 0 for rate in hyper["droppath_rates"]]] = recorded.unflatten(0, (-1, 2))
    rows, columns = backbone.native
    size = f"{rows * backbone.patch_size[0]}x{columns * backbone.patch_size[1]}"
    tokens, _ = backbone(case[f"x_{size}"].double(), drop=drop)
    return _near("drop path", tokens[:, 0], case["droppath_cls"])


@replays("attmask/vit_masked")
def replay_masked(case: Case) -> list[Deviation]:
    """Mask tokens before positions; attention with and without them; unmasked local crops."""
    backbone = build(case, mask_token=True)
    images = case["x"].double()
    masked, with_mask = backbone(images, hidden=case["mask"].flatten(1).bool(), attention=True)
    plain, without = backbone(images, attention=True)
    local, _ = backbone(case["x_local"].double())
    return [
        _near("masked tokens", masked, case["tokens_masked"]),
        _near("masked attention", with_mask["attention_heads"], case["attn_masked"][:, :, 0, 1:]),
        _near("plain tokens", plain, case["tokens_plain"]),
        _near("plain attention", without["attention_heads"], case["attn_plain"][:, :, 0, 1:]),
        _near("mean attention", without["attention"], case["cls_attention_mean"]),
        _near("local tokens", local, case["tokens_local"]),
    ]


@replays("dino/head")
def replay_head(case: Case) -> list[Deviation]:
    """Scores in training and evaluation mode, gradients, and what is trained."""
    hyper = case.meta["hyper"]
    shape = Head(
        nlayers=hyper["nlayers"],
        hidden_dim=hyper["hidden_dim"],
        bottleneck_dim=hyper["bottleneck_dim"],
        out_dim=hyper["out_dim"],
        batch_norm=hyper["use_bn"],
        norm_last_layer=hyper["norm_last_layer"],
    )
    head = shape.build(hyper["in_dim"], seed=0).double()
    load_official_head(head, case.under("param/", torch.float64))
    x = case["x"].double().requires_grad_()
    out = head.train()(x)
    (out * case["cotangent"]).sum().backward()
    first = next(layer for layer in head.mlp if isinstance(layer, torch.nn.Linear))
    found = [
        _near("train", out, case["out_train"]),
        _near("eval", head.eval()(x), case["out_eval"]),
        _near("gradient of x", x.grad, case["grad_x"]),
        _near("gradient of directions", head.last_layer.direction.grad, case["grad_last_weight_v"]),
        _near("gradient of first layer", first.weight.grad, case["grad_mlp0_weight"]),
    ]
    if "grad_last_weight_g" in case.tensors:
        found.append(_near("gradient of gains", head.last_layer.gain.grad, case["grad_last_weight_g"]))
    trained = hyper["requires_grad"]["last_layer.weight_g"] == head.last_layer.gain.requires_grad
    return [*found, Deviation("gains trained as told", 0.0 if trained else float("inf"), 0.0)]


@replays("attmask/rand_masks")
def replay_random_masks(case: Case) -> list[Deviation]:
    """The count hidden for each ratio drawn (exact); positions are a matter of chance."""
    rows, columns = case.meta["hyper"]["grid"]
    found = []
    for index, masks in enumerate(case["masks"]):
        for view, theirs in enumerate(masks):
            count = hidden_count(_drawn_ratio(case, index, view), rows * columns)
            key = torch.tensor([index * len(masks) + view])
            ours = hide_top(random_scores(key, rows * columns), count)
            found.append(Deviation(f"count {index}.{view}", abs(int(ours.sum()) - int(theirs.sum())), 0.0))
    return found


def _drawn_ratio(case: Case, index: int, view: int) -> float:
    """The ratio of one mask; where it does not vary, nothing was drawn for it."""
    if case.meta["hyper"]["pred_ratio_var"] == 0:
        return case.meta["hyper"]["pred_ratio"]
    return case.meta["draws"][index][view][1]
