"""Masked autoencoders of the golden cases: our own methods, with released weights and recorded masks."""

import torch
from torch import Tensor

from pipelines.crops import Crops, LocalCrops, MultiCrop
from raymask.convbackbone import ConvBackbone
from raymask.masks import Mask
from raymask.masks.disjoint import Disjoint, plan
from raymask.methods.disjoint_views import Views, cut_views
from raymask.methods.dmjd import Dmjd, DmjdMethod
from raymask.methods.mae import DecoderShape, Mae, MaeMethod
from raymask.optim import Optim
from raymask.progress import Progress
from raymask.schedules import Constant
from raymask.step import train_step
from raymask.streams import Rng
from raymask.vit import Backbone
from tests.golden.batches import batch_of
from tests.golden.cases import Case, Deviation
from tests.golden.closeness import close
from tests.golden.parameters import after_step, at_last
from tests.golden.released_names import State, ours

PLAIN = {"jitter": 0.0, "grey": 0.0, "blur": 0.0, "solarise": 0.0}
CHECKS_RTOL = 0.01  # the MAE cases state none for checksums: that of the DMJD cases


class RecordedMae(MaeMethod):
    """MAE whose masks are those of a case, `views`."""

    views: Views

    def draw(self, *_: object, **__: object) -> Views:
        return self.views


class RecordedDmjd(RecordedMae, DmjdMethod):
    """DMJD whose masks are those of a case."""


def autoencoder(
    settings: Mae, state: State, ratio: float, *, heads: int, views: int = 1, unit: int = 1
) -> RecordedMae:
    """The method with released weights, in float64 and training mode; `heads` are the encoder's."""
    backbone = _convvit(state, heads) if "patch_embed1.proj.weight" in state else _vit(state, heads)
    mask = Mask(strategy=Disjoint(views=views, unit=unit), kind="drop", ratio=ratio)
    crops = MultiCrop(
        global_crops=Crops(count=1, size=backbone.image_size, **PLAIN), local_crops=LocalCrops(count=0)
    )
    kind = RecordedDmjd if isinstance(settings, Dmjd) else RecordedMae
    method = kind(settings, backbone, mask, crops, seed=0).double().train()
    method.student.load_state_dict({ours(name): tensor for name, tensor in state.items()})
    return method


def decoder_shape(state: State, heads: int) -> DecoderShape:
    """The decoder's size, read off its weights."""
    hidden, dim = state["decoder_blocks.0.mlp.fc1.weight"].shape
    depth = _blocks_of(state, "decoder_blocks")
    return DecoderShape(dim=dim, depth=depth, heads=heads, mlp_ratio=hidden / dim)


def _convvit(state: State, heads: int) -> ConvBackbone:
    dims, ratios = _widths(state, "patch_embed{}.proj"), _widths(state, "blocks{}.0.mlp.fc1")
    strides = tuple(state[f"patch_embed{i}.proj.weight"].shape[-1] for i in (1, 2, 3))
    return ConvBackbone(
        image_size=int(state["pos_embed"].shape[1] ** 0.5) * strides[0] * strides[1] * strides[2],
        dims=dims,
        depths=tuple(_blocks_of(state, f"blocks{i}") for i in (1, 2, 3)),
        heads=heads,
        mlp_ratios=tuple(wide / dim for wide, dim in zip(ratios, dims)),
        strides=strides,
    )


def _widths(state: State, name: str) -> tuple[int, ...]:
    return tuple(state[f"{name.format(i)}.weight"].shape[0] for i in (1, 2, 3))


def _vit(state: State, heads: int) -> Backbone:
    dim, _, patch, _ = state["patch_embed.proj.weight"].shape
    return Backbone(
        name="vit_tiny_patch16_224",
        image_size=int((state["pos_embed"].shape[1] - 1) ** 0.5) * patch,
        patch_size=patch,
        dim=dim,
        depth=_blocks_of(state, "blocks"),
        heads=heads,
        mlp_ratio=state["blocks.0.mlp.fc1.weight"].shape[0] / dim,
        drop_path=0.0,
    )


def _blocks_of(state: State, name: str) -> int:
    return 1 + max(int(key.split(".")[1]) for key in state if key.startswith(f"{name}."))


def views_of(draws: Tensor, ratio: float, patches: int, *, unit: int = 1) -> Views:
    """The masked views that these draws [views, images, units] make at a mask ratio."""
    counts, side = plan(draws.shape[2], ratio, 1.0, len(draws)), int(patches**0.5)
    visible, hidden = cut_views(draws, counts, grid=(side, side), unit=unit)
    return Views(visible, hidden, len(draws), torch.zeros((), dtype=torch.int64))


def released_optim(*, peak: float, batch: int, epochs: int, warmup: float, betas: tuple, wd: float) -> Optim:
    """The optimiser of a released training of `epochs` that peaks at `peak` for `batch` images a step."""
    return Optim(
        base_lr=peak * 256 / batch,
        min_lr=0.0,
        lr_rule="mae",
        warmup=warmup / epochs,
        weight_decay=Constant(value=wd),
        betas=betas,
        clip=None,
        freeze_last_layer=0,
    )


def replay_steps(
    case: Case, method: RecordedMae, optim: Optim, *, images: Tensor, views: list[Views], at: Progress
) -> list[Deviation]:
    """Trains `method` on the recorded steps [steps, b, 3, h, w], the first of them `at` that time.

    Compared are the loss, the learning rate and the checksums of all parameters at each step, then the
    weights that the released code ended with.
    """
    optimiser, found, moved = optim.build(method.student), [], 0.0
    tolerance, names = case.meta["tolerance"], case.meta["hyper_parameters"]["param_names"]
    rtol = tolerance.get("checks_rtol", CHECKS_RTOL)
    for step, method.views in enumerate(views):
        now = Progress(at.step + step, at.steps, at.steps_per_epoch)
        batch = batch_of({"global": images[step][None]}, step)
        report = train_step(method, batch, now, Rng(0, step), optimiser=optimiser, optim=optim)
        moved += report["lr"]
        found += [
            close(
                f"step {step} loss",
                report["loss"],
                case["losses"][step],
                rtol=tolerance["losses_rtol"],
                atol=0,
            ),
            Deviation(f"step {step} lr", abs(report["lr"] / float(case["lrs"][step]) - 1), 1e-12),
            *after_step(
                parameters(method, names), case["param_checks"][step], moved=moved, rtol=rtol, step=step
            ),
        ]
    return found + at_last(parameters(method, names), case.under("wN."), rtol=rtol)


def parameters(method: MaeMethod, names: list[str]) -> State:
    """The student's parameters by their released names."""
    found = dict(method.student.named_parameters())
    return {name: found[ours(name)].detach() for name in names}
