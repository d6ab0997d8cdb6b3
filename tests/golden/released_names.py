"""The parameter names of the released masked autoencoders, for the students of our methods."""

import re

from torch import Tensor

State = dict[str, Tensor]

_BRANCHES = (
    (r"^decoder_(embed|blocks|norm|pred|pos_embed)\b", r"head.decoder.\1"),
    (r"^mask_token$", r"head.decoder.mask_token"),
    (r"^proj_embed\.", r"head.visible.project."),
    (r"^predictor\.0\.", r"head.visible.predict."),
)


def ours(name: str) -> str:
    """The name in the student of a released parameter."""
    for pattern, replacement in _BRANCHES:
        if re.search(pattern, name):
            return re.sub(pattern, replacement, name)
    return f"backbone.vit.{name}"
