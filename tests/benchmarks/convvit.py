"""What it saves to compute ConvViT's convolution stages on visible patches only.

    python -m tests.benchmarks.convvit [--images 4] [--ratio 0.6] [--repeats 3]

Times the encoder of the DMJD recipe (ConvViT-B, MLP ratios 8, 8, 4; 224 pixels, units of 2 x 2 patches)
forward and backward, against the same network computed densely, as the released code does: every patch goes
through both stages, and the mask stands only before the depthwise convolutions. Both give the same tokens;
the script checks it.
"""

import argparse
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, gelu
from torch.utils.flop_counter import FlopCounterMode

from raymask.convvit import ConvBlock, ConvEmbed, ConvViT
from raymask.masks.disjoint import disjoint_order, plan, unit_patches

RECIPE = {"dims": (256, 384, 768), "depths": (2, 2, 11), "heads": 12, "mlp_ratios": (8.0, 8.0, 4.0)}


def dense(network: ConvViT, images: Tensor, visible: Tensor) -> Tensor:
    """The tokens of the visible patches, with both convolution stages computed everywhere."""
    rows, columns = network.grid(*images.shape[-2:])
    shown = torch.zeros(len(images), rows * columns, dtype=images.dtype).scatter(1, visible, 1.0)
    shown = shown.view(-1, 1, rows, columns)
    first = _embedded(network.patch_embed1, images)
    for block in network.blocks1:
        first = _mixed(block, first, shown)
    second = _embedded(network.patch_embed2, first)
    for block in network.blocks2:
        second = _mixed(block, second, shown)
    third = network.patch_embed4(_embedded(network.patch_embed3, second).flatten(2).transpose(1, 2))
    fused = [conv(x) for conv, x in zip(_fusions(network), (first, second))]
    kept = visible[:, :, None].expand(-1, -1, network.dim)
    x = (third + network.pos_embed).gather(1, kept)
    for block in network.blocks3:
        x = block(x)
    return network.norm(x + sum(f.flatten(2).transpose(1, 2).gather(1, kept) for f in fused))


def _fusions(network: ConvViT) -> tuple[nn.Conv2d, nn.Conv2d]:
    return network.stage1_output_decode, network.stage2_output_decode


def _embedded(embed: ConvEmbed, x: Tensor) -> Tensor:
    return gelu(_normed(embed.norm, embed.proj(x)))


def _normed(norm: nn.LayerNorm, x: Tensor) -> Tensor:
    return norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def _mixed(block: ConvBlock, x: Tensor, shown: Tensor) -> Tensor:
    mask = shown.repeat_interleave(x.shape[2] // shown.shape[2], 2).repeat_interleave(
        x.shape[3] // shown.shape[3], 3
    )
    weight, bias = block.attn.weight, block.attn.bias
    x = x + block.conv2(
        conv2d(mask * block.conv1(_normed(block.norm1, x)), weight, bias, padding=2, groups=len(bias))
    )
    return x + block.mlp.fc2(gelu(block.mlp.fc1(_normed(block.norm2, x))))


def seconds(step: Callable[[], None], repeats: int) -> float:
    """CPU time of the shortest of some runs, after one to warm up; other work hardly disturbs it."""
    step()
    times = []
    for _ in range(repeats):
        start = time.process_time()
        step()
        times.append(time.process_time() - start)
    return min(times)


def main() -> None:
    """Prints a line for each way and precision."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=4)
    parser.add_argument("--ratio", type=float, default=0.6)
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args()
    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    network = ConvViT(image_size=(224, 224), **RECIPE)
    images = torch.randn(given.images, 3, 224, 224, generator=generator)
    counts = plan(49, given.ratio, 1.0, 1)
    order = disjoint_order(torch.rand(1, given.images, 49, generator=generator), counts)[0]
    visible = unit_patches(order[:, : counts.visible], (14, 14), 2)
    ways = {
        "dense": lambda: dense(network, images, visible),
        "visible": lambda: network(images, visible=visible),
    }
    with torch.no_grad():
        difference = (ways["dense"]() - ways["visible"]()).abs().max()
    print(f"{given.images} images, ratio {given.ratio}, {visible.shape[1]} of 196 patches visible")
    print(f"{torch.get_num_threads()} threads; largest difference of the tokens {difference:.2g}")
    for name in (None, "bfloat16"):
        took = {way: seconds(_step(network, run, name), given.repeats) for way, run in ways.items()}
        for way, run in ways.items():
            with FlopCounterMode(display=False) as counter, torch.no_grad():
                run()
            gmac = counter.get_total_flops() / 2e9 / given.images
            print(
                f"{name or 'float32':9s} {way:8s} {took[way] / given.images * 1e3:8.1f} CPU ms a view, "
                f"{gmac:6.2f} GMAC forward, {took['dense'] / took[way]:.2f}x"
            )


def _step(network: ConvViT, run: Callable[[], Tensor], name: str | None) -> Callable[[], None]:
    dtype = getattr(torch, name) if name else torch.float32

    def step() -> None:
        network.zero_grad()
        with torch.autocast("cpu", dtype=dtype, enabled=name is not None):
            loss = run().float().square().mean()
        loss.backward()

    return step


if __name__ == "__main__":
    main()
