"""The run-time checker of annotations in tests."""

from collections.abc import Callable
from typing import Any

from beartype import BeartypeConf, beartype
from beartype.roar import BeartypeDecorHintPep3119Exception

# An int is fine where a float is asked for, as for every static type checker.
_check = beartype(conf=BeartypeConf(is_pep484_tower=True))


def checked(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function`, checking its annotations; as it is where one is a protocol without run-time checks."""
    try:
        return _check(function)
    except BeartypeDecorHintPep3119Exception:
        return function
