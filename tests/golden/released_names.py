"""The parameter names of the released masked autoencoders, for our modules and back."""

import re

from torch import Tensor

State = dict[str, Tensor]

_BRANCHES = (
    (r"^decoder_(embed|blocks|norm|pred|pos_embed)\b", r"decoder.\1"),
    (r"^mask_token$", r"decoder.mask_token"),
    (r"^proj_embed\.", r"branch.project."),
    (r"^predictor\.0\.", r"branch.predict."),
)


def ours(name: str) -> str:
    """The name in a network with parts `encoder`, `decoder` and `branch` of a released parameter."""
    for pattern, replacement in _BRANCHES:
        if re.search(pattern, name):
            return re.sub(pattern, replacement, name)
    return f"encoder.{name}"


def part(state: State, prefix: str) -> State:
    """The tensors of one part (`encoder`, `decoder`, `branch`), by their names inside it."""
    renamed = {ours(name): tensor for name, tensor in state.items()}
    return {k.removeprefix(f"{prefix}."): v for k, v in renamed.items() if k.startswith(f"{prefix}.")}
