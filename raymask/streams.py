"""The counter-based streams of `pipelines.streams` on torch tensors, drawn where they are used.

torch has no unsigned 64-bit arithmetic on every device; int64 wraps around and gives the same bits, given
a logical shift.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from pipelines import streams as host

# b: images   n: draws of one stream


def _signed(value: int) -> int:
    return value - (1 << 64) if value >= 1 << 63 else value


_GOLDEN, _MIX1, _MIX2 = (_signed(int(c)) for c in (host.GOLDEN, host.MIX1, host.MIX2))


def _shift(z: Tensor, bits: int) -> Tensor:
    return (z >> bits) & ((1 << (64 - bits)) - 1)


def mix(z: Int[Tensor, "*dims"]) -> Int[Tensor, "*dims"]:
    """splitmix64's finaliser, elementwise on int64 taken as 64 bits."""
    z = (z ^ _shift(z, 30)) * _MIX1
    z = (z ^ _shift(z, 27)) * _MIX2
    return z ^ _shift(z, 31)


def fold(key: Int[Tensor, "*dims"], value: Int[Tensor, "*dims"] | int) -> Int[Tensor, "*dims"]:
    """The keys of the sub-streams `value` of the streams `key`."""
    if isinstance(value, int):  # a Python integer does not wrap around by itself
        return mix(key + _signed(int(host.GOLDEN) * (value + 1) % (1 << 64)))
    return mix(key + _GOLDEN * (value + 1))


def uniforms(keys: Int[Tensor, " b"], count: int) -> Float[Tensor, "b {count}"]:
    """The first `count` draws of each stream: float64, uniform in [0, 1)."""
    counters = torch.arange(1, count + 1, device=keys.device)
    bits = mix(keys[:, None] + _GOLDEN * counters)
    return _shift(bits, 11).to(torch.float64) * (1.0 / (1 << 53))


@dataclass(frozen=True)
class Rng:
    """The randomness of one step, keyed by what is drawn and for whom: an argument, never a state."""

    seed: int
    step: int

    def per_sample(
        self, purpose: str, epochs: Int[Tensor, " b"], samples: Int[Tensor, " b"], view: int = 0
    ) -> Int[Tensor, " b"]:
        """One key for each image of a batch, the same on whatever rank or in whatever chunk it lies."""
        base = _signed(int(host.stream(self.seed, purpose, view)))
        return fold(fold(torch.full_like(samples, base), epochs), samples)

    def per_step(self, purpose: str, count: int = 1) -> list[float]:
        """`count` uniform draws that the whole global batch shares, on the host."""
        key = host.stream(self.seed, purpose, self.step)
        return [float(host.uniform(key, np.uint64(i))) for i in range(count)]
