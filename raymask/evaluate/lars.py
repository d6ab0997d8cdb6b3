"""LARS (arXiv:1708.03888) as the linear probes of MAE, ConvMAE and DMJD use it: no weight decay."""

import torch
from torch import Tensor, nn

TRUST = 1e-3


class Lars:
    """SGD with momentum whose step on a matrix is as long as TRUST times its norm, at a rate of 1.

    Biases take plain steps. A matrix or gradient of zeros is not scaled.
    """

    def __init__(self, parameters: list[nn.Parameter], *, momentum: float = 0.9) -> None:
        self.parameters, self.momentum = parameters, momentum
        self.moved = [torch.zeros_like(parameter) for parameter in parameters]

    @torch.no_grad()
    def step(self, rate: float) -> None:
        """One step by the gradients, which are then forgotten."""
        for parameter, moved in zip(self.parameters, self.moved):
            assert parameter.grad is not None
            moved.mul_(self.momentum).add_(parameter.grad * _trust(parameter))
            parameter.sub_(moved, alpha=rate)
            parameter.grad = None


def _trust(parameter: nn.Parameter) -> Tensor | float:
    assert parameter.grad is not None
    if parameter.ndim < 2:
        return 1.0
    own, gradient = parameter.norm(), parameter.grad.norm()
    return torch.where((own > 0) & (gradient > 0), TRUST * own / gradient, 1.0)
