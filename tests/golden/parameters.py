"""Parameters after recorded steps, against the sums and lengths that the released code logged of them.

The bias of a key moves no output (softmax is blind to it): its gradient is rounding noise, of which AdamW
makes steps of full size. So of that third of each `qkv.bias` only the way it can have gone is held, in either
direction in either run. A sum of values of both signs comes near 0: its scale is the length.
"""

import torch
from torch import Tensor

from tests.golden.cases import Deviation

State = dict[str, Tensor]
BLIND = "qkv.bias"


def after_step(found: State, expected: Tensor, *, moved: float, rtol: float, step: int) -> list[Deviation]:
    """Sum and L2 norm of each parameter, in order, as shares of what `expected` [parameters, 2] allows.

    `moved`: the sum of the learning rates so far, as far as a key's bias can have gone.
    """
    got = torch.stack([torch.stack([value.sum(), value.norm()]) for value in found.values()])
    keys = torch.tensor([len(v) / 3 if name.endswith(BLIND) else 0.0 for name, v in found.items()])
    sums, lengths = (got - expected).abs().unbind(-1)
    scale = rtol * expected[:, 1]
    shares = {
        "sums": sums / (scale + 2 * moved * keys),
        "lengths": lengths / (scale + 2 * moved * keys.sqrt()),
    }
    return [
        Deviation(f"{what} after step {step} (share of the tolerance)", float(share.max()), 1.0)
        for what, share in shares.items()
    ]


def at_last(found: State, expected: State, *, rtol: float) -> list[Deviation]:
    """The length of each parameter's deviation over its own, without the biases of keys."""
    pairs = {name: (_seen(found[name], name), _seen(last.double(), name)) for name, last in expected.items()}
    return [
        Deviation(f"last {name}", float((got - last).norm() / last.norm()), rtol)
        for name, (got, last) in pairs.items()
    ]


def _seen(value: Tensor, name: str) -> Tensor:
    """What of a parameter has a gradient."""
    if not name.endswith(BLIND):
        return value
    query, _, rest = value.chunk(3)
    return torch.cat([query, rest])
