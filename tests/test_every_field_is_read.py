"""Every configuration field is read somewhere: an option that reaches nothing is worse than none."""

import ast
from pathlib import Path

import pytest

from pipelines.settings import Settings
from raymask.config import Config
from raymask.schema import kind_of, members

ROOT = Path(__file__).parent.parent


def classes(model: type[Settings], found: dict[type, None] | None = None) -> list[type[Settings]]:
    """Every Settings class that a config can hold, each once."""
    found = {} if found is None else found
    if model not in found:
        found[model] = None
        for field in model.model_fields.values():
            for below in members(field.annotation):
                classes(below, found)
    return list(found)


def fields() -> list[tuple[str, str]]:
    return [
        (model.__name__, name)
        for model in classes(Config)
        for name in model.model_fields
        if not (name == "kind" and kind_of(model))
    ]


def names_read() -> set[str]:
    """Attributes that are read anywhere in the product, and names that are given to `getattr` and its kin."""
    found = set()
    for path in [*ROOT.glob("raymask/**/*.py"), *ROOT.glob("pipelines/**/*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
                found.add(node.attr)
            elif isinstance(node, ast.Call):
                found |= {
                    a.value for a in node.args if isinstance(a, ast.Constant) and isinstance(a.value, str)
                }
    return found


READ = names_read()


@pytest.mark.parametrize(("model", "name"), fields())
def test_the_field_is_read(model: str, name: str):
    assert name in READ, f"{model}.{name} is read nowhere"
