"""Our parts put together as the released masked autoencoders, and their optimisation steps."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from pipelines.crops import IMAGENET_MEAN, IMAGENET_STD
from raymask.convbackbone import ConvVisionBackbone
from raymask.convvit import ConvViT
from raymask.decoder import Decoder, VisibleBranch
from raymask.iteration_cosine import IterationCosine
from raymask.progress import Progress
from raymask.targets import Hog, hidden_loss, visible_loss
from raymask.vit import Backbone
from tests.golden.cases import Deviation
from tests.golden.closeness import close
from tests.golden.released_names import State, ours, part


class Seen(NamedTuple):
    """Tokens of the encoder, and the predictions of the branches."""

    tokens: Tensor
    predicted: Tensor
    visible: Tensor | None


class Autoencoder(nn.Module):
    """Encoder, decoder and, for DMJD, visible branch, with released weights, in float64."""

    def __init__(self, encoder: nn.Module, state: State, *, heads: int):
        super().__init__()
        state = {name: tensor.double() for name, tensor in state.items()}
        self.encoder = encoder.double()
        target, dim = state["decoder_pred.weight"].shape
        depth = blocks_of(state, "decoder_blocks")
        ratio = state["decoder_blocks.0.mlp.fc1.weight"].shape[0] / dim
        self.decoder = Decoder(
            encoder.dim,
            target,
            grid=encoder.native,
            prefix=encoder.prefix,
            dim=dim,
            depth=depth,
            heads=heads,
            mlp_ratio=ratio,
        ).double()
        self.decoder.load_state_dict(part(state, "decoder"))
        self.branch = None
        if branch := part(state, "branch"):
            self.branch = VisibleBranch(encoder.dim, target, dim=dim).double()
            self.branch.load_state_dict(branch)

    def forward(self, images: Tensor, visible: Tensor) -> Seen:
        """What is predicted of images [b, 3, h, w] seen in len(visible) / b views, view by view."""
        tokens, _ = self.encoder(images.repeat(len(visible) // len(images), 1, 1, 1), visible=visible)
        return Seen(tokens, self.decoder(tokens, visible), self.branch and self.branch(tokens))


def released_convvit(state: State, *, heads: int) -> ConvVisionBackbone:
    """A ConvViT of the sizes that the weights have, with these weights."""
    dims = tuple(state[f"patch_embed{i}.proj.weight"].shape[0] for i in (1, 2, 3))
    ratios = tuple(state[f"blocks{i}.0.mlp.fc1.weight"].shape[0] / dims[i - 1] for i in (1, 2, 3))
    strides = tuple(state[f"patch_embed{i}.proj.weight"].shape[-1] for i in (1, 2, 3))
    side = int(state["pos_embed"].shape[1] ** 0.5) * strides[0] * strides[1] * strides[2]
    encoder = ConvViT(
        image_size=(side, side),
        dims=dims,
        depths=tuple(blocks_of(state, f"blocks{i}") for i in (1, 2, 3)),
        heads=heads,
        mlp_ratios=ratios,
        strides=strides,
    )
    encoder.load_state_dict(part(state, "encoder"))
    return ConvVisionBackbone(encoder)


def released_vit(state: State, *, heads: int):
    """A plain ViT of the sizes that the weights have, with these weights; its positions are fixed."""
    dim, _, patch, _ = state["patch_embed.proj.weight"].shape
    side = int((state["pos_embed"].shape[1] - 1) ** 0.5) * patch
    ratio = state["blocks.0.mlp.fc1.weight"].shape[0] / dim
    settings = Backbone(
        name="vit_tiny_patch16_224",
        image_size=side,
        patch_size=patch,
        dim=dim,
        depth=blocks_of(state, "blocks"),
        heads=heads,
        mlp_ratio=ratio,
        drop_path=0.0,
    )
    encoder = settings.build(seed=0)
    encoder.vit.load_state_dict(part(state, "encoder"))
    encoder.vit.pos_embed.requires_grad_(False)
    return encoder


def blocks_of(state: State, name: str) -> int:
    """Number of blocks of the list `name`."""
    return 1 + max(int(key.split(".")[1]) for key in state if key.startswith(f"{name}."))


def colours(levels: Tensor) -> Tensor:
    """Normalised float64 images [b, 3, h, w] of 8-bit ones [b, h, w, 3]."""
    mean, std = (torch.tensor(c, dtype=torch.float64) for c in (IMAGENET_MEAN, IMAGENET_STD))
    return ((levels.double() / 255 - mean) / std).permute(0, 3, 1, 2)


def joint_loss(
    seen: Seen, images: Tensor, visible: Tensor, *, aligned: bool, mim: str, vis: str, theta: float
) -> Tensor:
    """DMJD's loss against the HOG of normalised images, in either pairing of visible patches."""
    views, patches = len(visible) // len(images), seen.predicted.shape[1]
    patch = int((images.shape[-1] ** 2 / patches) ** 0.5)
    target = Hog()(images, patch, mean=IMAGENET_MEAN, std=IMAGENET_STD).repeat(views, 1, 1)
    hidden = torch.ones(len(visible), patches, dtype=torch.bool).scatter(1, visible, False)
    paired = visible if aligned else visible.sort(dim=1).values
    return hidden_loss(seen.predicted, target, hidden, mim) + theta * visible_loss(
        seen.visible, target, paired, vis
    )


def released_rate(epoch: float, *, epochs: int, warmup: float, peak: float, end: float = 0.0) -> float:
    """The learning rate at a fractional epoch."""
    fine = 8_000_000  # steps of an epoch, so that a step stands for any fraction
    schedule = IterationCosine(peak=peak, end=end, warmup=warmup / epochs)
    return schedule(Progress(round(epoch * fine), epochs * fine, fine))


def released_optimiser(network: nn.Module, *, betas: tuple[float, float], wd: float) -> torch.optim.Optimizer:
    """AdamW over what is trained; biases and one-dimensional tensors do not decay."""
    trained = [(name, p) for name, p in network.named_parameters() if p.requires_grad]
    still = [p for name, p in trained if p.ndim <= 1 or name.endswith(".bias")]
    decayed = [p for name, p in trained if p.ndim > 1 and not name.endswith(".bias")]
    groups = [{"params": decayed, "weight_decay": wd}, {"params": still, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, betas=betas, eps=1e-8)


def descend(optimiser: torch.optim.Optimizer, loss: Tensor, rate: float) -> None:
    """One step at this learning rate."""
    for group in optimiser.param_groups:
        group["lr"] = rate
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()


def parameters(network: Autoencoder) -> State:
    """Every parameter by its name among `encoder`, `decoder` and `branch`, without timm's wrapper."""
    return {name.replace("encoder.vit.", "encoder."): p.detach() for name, p in network.named_parameters()}


def weights_after(
    network: Autoencoder, names: list[str], expected: Tensor, moved: float, **tolerance: float
) -> list[Deviation]:
    """Sum and L2 norm of each parameter against `expected` [parameters, 2], in the order of `names`.

    Softmax does not see the biases of keys: their gradient is zero up to rounding, and Adam turns the
    rounding into steps of full length. So the sum of a `qkv.bias` may differ by as far as its key biases have
    `moved` (the sum of learning rates so far), in either direction in either run.
    """
    found = parameters(network)
    got = torch.stack([torch.stack([found[ours(n)].sum(), found[ours(n)].norm()]) for n in names])
    blind = torch.tensor(
        [2 * moved * len(found[ours(n)]) / 3 if n.endswith("qkv.bias") else 0.0 for n in names]
    )
    got[:, 0] = expected[:, 0] + soft_threshold(got[:, 0] - expected[:, 0], blind)
    return [close("weights", got, expected, **tolerance)]


def soft_threshold(values: Tensor, by: Tensor) -> Tensor:
    """What of each value exceeds `by`."""
    return values.sign() * (values.abs() - by).clamp(min=0)


def final_weights(network: Autoencoder, state: State, **tolerance: float) -> list[Deviation]:
    """The weights against those that the released code ended with, but for key biases (`weights_after`)."""
    found = parameters(network)
    pairs = [(name, found[ours(name)], tensor) for name, tensor in state.items()]
    cut = [(n, *(_no_keys(t) for t in both)) if n.endswith("qkv.bias") else (n, *both) for n, *both in pairs]
    return [close(f"final {name}", got, expected, **tolerance) for name, got, expected in cut]


def _no_keys(bias: Tensor) -> Tensor:
    query, _, value = bias.chunk(3)
    return torch.cat([query, value])
