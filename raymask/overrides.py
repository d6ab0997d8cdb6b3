"""`key=value` on the command line, and merging one tree of settings over another."""

import re
from collections.abc import Sequence
from typing import Any, TypeVar

import yaml
from pydantic import ValidationError

from pipelines.settings import Settings
from raymask.schema import Model, fallback, kind_of, member
from raymask.sentences import explain

Given = TypeVar("Given", bound=Settings)


class _Loader(yaml.SafeLoader):
    """YAML 1.2 where it matters: 1e-4 is a number, 2:8 is not 128, only true and false are truth values."""

    yaml_implicit_resolvers = {  # noqa: RUF012  (PyYAML's own class attribute)
        first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith((":float", ":int", ":bool"))]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


_SHORT = {"data": "data.train", "ingest": "ingest.kind"}  # what a bare string stands for

_NUMBER = re.compile(
    r"^[-+]?(\d[\d_]*\.?\d*([eE][-+]?\d+)?|\.\d+([eE][-+]?\d+)?|\.(inf|Inf|INF))$|^\.(nan|NaN|NAN)$"
)
_WHOLE = re.compile(r"^[-+]?(0|[1-9][\d_]*|0x[0-9a-fA-F_]+)$")
_Loader.add_implicit_resolver("tag:yaml.org,2002:int", _WHOLE, list("-+0123456789"))
_Loader.add_implicit_resolver("tag:yaml.org,2002:float", _NUMBER, list("-+.0123456789"))
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile(r"^(true|True|TRUE|false|False|FALSE)$"), list("tTfF")
)


def read_yaml(text: str, *, where: str) -> Any:
    """The value that YAML `text` stands for; nothing in it is executed. `where` names it in errors."""
    try:
        return yaml.load(text, _Loader)  # a SafeLoader
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark is not None else ""
        raise ValueError(f"{where} is not YAML{line}: {getattr(error, 'problem', None) or error}") from error


def parse(overrides: list[str]) -> dict:
    """The tree of `a.b=value` items; the last one wins where two name the same key."""
    tree: dict = {}
    for item in overrides:
        path, equals, text = item.partition("=")
        if not equals or not all(part.strip() for part in path.split(".")):
            raise ValueError(
                f"'{item}' is not key=value; a setting is given as, for instance, train.epochs=10"
            )
        # YAML keeps @ for itself, but @FILE is how a list of shards is named.
        listed = text.startswith("@")
        value = text if listed else read_yaml(text, where=f"the value of '{path.strip()}'")
        # A later data.crops=... must join data=PATH, not replace it.
        name = _SHORT.get(path.strip(), path.strip()) if isinstance(value, str) else path.strip()
        tree = _put(tree, name.split("."), value)
    return tree


def _put(tree: dict, path: list[str], value: Any) -> dict:
    """A copy of `tree` in which `path` holds `value` (a dict joins the dict that is there)."""
    first, rest = path[0], path[1:]
    here = tree.get(first)
    below = here if isinstance(here, dict) else {}
    if rest:
        return {**tree, first: _put(below, rest, value)}
    return {**tree, first: {**below, **value} if isinstance(value, dict) else value}


def merge(base: dict, changes: dict, *, model: Model | None) -> dict:
    """`base` with `changes` over it, key by key down to the leaves.

    What belongs to another `kind` does not survive a change of kind: mask.strategy.kind=attention drops the
    settings of the random strategy. `model` is the class that answers for the tree.
    """
    merged = dict(base)
    for key, value in changes.items():
        below = base.get(key)
        if below is None and model is not None and isinstance(value, dict):
            default = fallback(model, key)
            below = None if default is None else default.model_dump(mode="json")
        value = _spelled_out(key, value, below)
        if isinstance(value, dict) and isinstance(below, dict):
            owner = member(model, key, below) if model is not None else None
            kept = {} if _switches(below, value, owner) else below
            inner = member(model, key, {**kept, **value}) if model is not None else None
            merged[key] = merge(kept, value, model=inner)
        else:
            merged[key] = value
    return merged


def _spelled_out(key: str, value: Any, below: Any) -> Any:
    """`data=PATH` is short for `data.train=PATH`, and leaves the rest of the data settings alone."""
    if key in _SHORT and isinstance(value, str) and isinstance(below, dict | None):
        return {_SHORT[key].rpartition(".")[2]: value}
    return value


def _switches(below: dict, value: dict, owner: Model | None) -> bool:
    """Whether `value` names another member of the union than `below` is."""
    kind = kind_of(owner) if owner is not None else None
    return kind is not None and value.get("kind", kind) != kind


def settings_of(model: type[Given], changes: Sequence[str]) -> Given:
    """The settings that `key=value` changes make of a class with defaults. Raises ValueError in sentences."""
    tree = parse(list(changes))
    try:
        return model.model_validate(tree)
    except ValidationError as error:
        raise ValueError(explain(error, root=model, tree=tree)) from error
