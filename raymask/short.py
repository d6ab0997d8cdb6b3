"""Values as a person reads them; files keep them whole."""

from collections.abc import Mapping
from typing import Any


def short(value: Any) -> str:
    """A value in few characters: numbers to four digits, schedules by their kind and numbers."""
    if isinstance(value, bool | str | None):
        return str(value).lower() if isinstance(value, bool) else str(value)
    if isinstance(value, int | float):
        return f"{value:.4g}" if isinstance(value, float) else str(value)
    if isinstance(value, Mapping):
        below = " ".join(short(below) for key, below in value.items() if key != "kind")
        return f"{value.get('kind', '')}({below})"
    return " ".join(short(below) for below in value)
