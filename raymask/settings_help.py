"""The settings of a verb in its --help: the fields of a Settings class, as its docstring explains them.

What knows of settings is imported when they are asked for, so that `raymask --help` comes at once.
"""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import typer.core

if TYPE_CHECKING:
    from pipelines.settings import Settings


def explained(model: type[Settings]) -> dict[str, str]:
    """What the docstring of a class says of its fields: `name: text`, `one, other: text`, also after `; `."""
    names = "|".join(model.model_fields)
    entry = re.compile(rf"(?:^|; )((?:{names})(?:, (?:{names}))*): (?=\S)", re.MULTILINE)
    parts = entry.split(inspect.getdoc(model) or "")
    found = {}
    for keys, text in zip(parts[1::2], parts[2::2]):
        for key in keys.split(", "):
            found[key] = " ".join(text.split())
    return found


def rows(model: type[Settings], prefix: str = "", *, deep: bool = True) -> Iterator[tuple[str, str]]:
    """`key=default` and its text for each field; those of a group follow it, for one level."""
    from raymask.schema import fallback

    said = explained(model)
    for name, field in model.model_fields.items():
        group = fallback(model, name)
        default = "" if group is not None else _short(field.get_default(call_default_factory=True))
        yield f"{prefix}{name}{default}", said.get(name, "")
        if group is not None and deep:
            yield from rows(type(group), f"{prefix}{name}.", deep=False)


def _short(value: Any) -> str:
    return "" if value is None else f"={str(value).lower() if isinstance(value, bool) else value}"


def with_settings(where: str) -> type[typer.core.TyperCommand]:
    """A command whose --help ends in the settings of the class at `module:Class`, imported when asked for."""

    class Explained(typer.core.TyperCommand):
        def format_epilog(self, ctx: Any, formatter: Any) -> None:
            module, _, name = where.partition(":")
            with formatter.section("Settings (KEY=VALUE)"):
                formatter.write_dl(list(rows(getattr(importlib.import_module(module), name))), col_max=28)

    return Explained
