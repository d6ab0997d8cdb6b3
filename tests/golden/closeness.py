"""Deviations relative to a tolerance that has a relative and an absolute part."""

from torch import Tensor

from tests.golden.cases import Deviation


def close(what: str, got: Tensor, expected: Tensor, *, rtol: float, atol: float) -> Deviation:
    """The largest deviation as a multiple of atol + rtol * |expected|, to be held to 1."""
    if tuple(got.shape) != tuple(expected.shape):
        return Deviation(f"{what} (shape)", float("inf"), 1.0)
    ratio = (got.detach().double() - expected.double()).abs() / (atol + rtol * expected.double().abs())
    return Deviation(what, float(ratio.max()), 1.0)
