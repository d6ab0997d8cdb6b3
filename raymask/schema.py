"""Walking a tree of Settings classes beside a raw tree of dicts: which class answers for which key.

Needed where pydantic is not asked yet (merging overrides into a preset) or has refused already (naming the
key that was meant).
"""

from collections.abc import Iterator
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel

from pipelines.settings import Settings

Model = type[BaseModel]


def members(annotation: Any) -> list[Model]:
    """The Settings classes that a value of this annotation can be: one, several for a union, or none."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    annotation = getattr(annotation, "__value__", annotation)  # `type X = ...` hides its value there
    origin = get_origin(annotation)
    if origin is Annotated:
        return members(get_args(annotation)[0])
    if origin in (Union, UnionType):
        return [model for part in get_args(annotation) for model in members(part)]
    return []


def kind_of(model: Model) -> str | None:
    """The name by which a union tells this class from the others; None where `kind` is an ordinary choice."""
    field = model.model_fields.get("kind")
    names = get_args(field.annotation) if field is not None else ()
    return names[0] if len(names) == 1 else None


def fallback(model: Model, key: str) -> Settings | None:
    """The Settings that stand at `key` of `model` when nothing is given."""
    field = model.model_fields.get(key)
    default = field.get_default(call_default_factory=True) if field is not None else None
    return default if isinstance(default, Settings) else None


def member(model: Model, key: str, value: Any) -> Model | None:
    """The class that answers for `value` at `key` of `model`; a union goes by `kind`, else by its default."""
    field = model.model_fields.get(key)
    found = members(field.annotation) if field is not None else []
    kind = value.get("kind") if isinstance(value, dict) else None
    for candidate in found:
        if kind is not None and kind_of(candidate) == kind:
            return candidate
    default = fallback(model, key)
    if kind is None and default is not None:
        return type(default)
    return found[0] if len(found) == 1 else None


def class_at(root: Model, tree: dict, path: list[str]) -> Model | None:
    """The class that answers for the keys below `path`, given what the raw `tree` says about kinds."""
    model: Model | None = root
    here: Any = tree
    for key in path:
        here = here.get(key) if isinstance(here, dict) else None
        model = member(model, key, here) if model is not None else None
    return model


def keys(root: Model, prefix: str = "") -> Iterator[str]:
    """Every dotted key that some configuration can have, parents before children."""
    for name, field in root.model_fields.items():
        yield f"{prefix}{name}"
        for model in members(field.annotation):
            yield from keys(model, f"{prefix}{name}.")
