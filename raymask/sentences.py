"""pydantic's errors as sentences: what was given, what is possible, what to do."""

from difflib import get_close_matches
from typing import Any

from pydantic import ValidationError

from raymask.schema import Model, class_at, keys


def explain(error: ValidationError, *, root: Model, tree: dict) -> str:
    """One sentence for each wrong key or value, a line each; `tree` is the raw input that was refused."""
    sentences: dict[str, list[str]] = {}
    for item in error.errors(include_url=False):
        path, sentence = _sentence(item, root=root, tree=tree)
        sentences.setdefault(path, []).append(sentence)
    return "\n".join(_joined(path, found) for path, found in sentences.items())


def _joined(path: str, found: list[str]) -> str:
    """The sentences of one key as one: a value that fits none of several types was refused by each."""
    different = list(dict.fromkeys(found))
    start = f"'{path}' is "
    if len(different) > 1 and all(s.startswith(start) for s in different):
        heads, reasons = zip(*(s.split(": ", 1) if ": " in s else (s, "") for s in different))
        return f"{heads[0]}: {', or '.join(dict.fromkeys(r for r in reasons if r))}"
    return different[0]


def _sentence(item: Any, *, root: Model, tree: dict) -> tuple[str, str]:
    """The dotted key that an error is about, and the sentence."""
    kind, path = item["type"], _path(item["loc"], item["type"], tree)
    dotted = ".".join(path)
    if kind == "extra_forbidden":
        return dotted, unknown_key(path, root=root, tree=tree)
    if kind == "missing":
        return dotted, f"'{dotted}' is missing: give {dotted}=VALUE"
    if kind == "union_tag_invalid":
        return dotted, _unknown_kind(dotted, item["ctx"]["tag"], item["ctx"]["expected_tags"])
    if kind == "union_tag_not_found":
        return dotted, f"'{dotted}' is {_short(item['input'])}, but needs a kind: give {dotted}.kind=NAME"
    if kind == "value_error":
        reason = str(item["ctx"]["error"])
        return dotted, f"{dotted}: {reason}" if dotted and dotted not in reason else reason
    if kind == "literal_error":
        return dotted, _unknown_value(dotted, item["input"], item["ctx"]["expected"])
    return dotted, f"'{dotted}' is {_short(item['input'])}: {_plain(item)}"


def _path(loc: tuple, kind: str, tree: Any) -> list[str]:
    """The part of pydantic's location that the user wrote: kinds and branches of unions are left out."""
    path: list[str] = []
    here = tree
    for place, key in enumerate(loc):
        if key in (
            here if isinstance(here, dict) else range(len(here)) if isinstance(here, list | tuple) else ()
        ):
            here = here[key]
        elif not (kind == "missing" and place == len(loc) - 1):
            continue
        path.append(str(key))
    return path


def unknown_key(path: list[str], *, root: Model, tree: dict) -> str:
    """unknown key 'mask.ration': did you mean 'mask.ratio'?"""
    parent, name = path[:-1], path[-1]
    start = f"unknown key '{'.'.join(path)}'"
    model = class_at(root, tree, parent)
    siblings = list(model.model_fields) if model is not None else []
    everywhere = sorted(dict.fromkeys(keys(root)), key=lambda key: key.count("."))
    meant = [
        *(".".join([*parent, key]) for key in get_close_matches(name, siblings, n=1, cutoff=0.75)),
        *(key for key in everywhere if key.rsplit(".", 1)[-1] == name),
        *(".".join([*parent, key]) for key in siblings if name in key.split("_")),
        *(".".join([*parent, key]) for key in get_close_matches(name, siblings, n=1, cutoff=0.5)),
        *get_close_matches(".".join(path), everywhere, n=1, cutoff=0.75),
    ]
    if meant:
        return f"{start}: did you mean '{meant[0]}'?"
    where = f"'{'.'.join(parent)}' has" if parent else "there are"
    return f"{start}: {where} {', '.join(siblings)}" if siblings else start


def _unknown_kind(dotted: str, given: str, expected: str) -> str:
    possible = [name.strip(" '") for name in expected.split(",")]
    near = get_close_matches(str(given), possible, n=1, cutoff=0.6)
    hint = f" (did you mean '{near[0]}'?)" if near else ""
    return f"unknown kind '{given}' at '{dotted}': possible are {', '.join(possible)}{hint}"


def _unknown_value(dotted: str, given: Any, expected: str) -> str:
    possible = expected.replace(" or ", ", ").replace("'", "")
    near = get_close_matches(str(given), possible.split(", "), n=1, cutoff=0.6)
    hint = f" (did you mean {near[0]}?)" if near else ""
    return f"'{dotted}' is {_short(given)}: possible are {possible}{hint}"


_PLAIN = {
    "int_parsing": "it must be a whole number",
    "int_type": "it must be a whole number",
    "int_from_float": "it must be a whole number",
    "float_parsing": "it must be a number",
    "float_type": "it must be a number",
    "bool_parsing": "it must be true or false",
    "bool_type": "it must be true or false",
    "string_type": "it must be text",
    "finite_number": "it must be a finite number",
    "tuple_type": "it must be a list",
    "list_type": "it must be a list",
    "model_type": "it must be a group of settings",
    "model_attributes_type": "it must be a group of settings",
    "missing_argument": "something is missing",
}


def _plain(item: Any) -> str:
    if item["type"] in _PLAIN:
        return _PLAIN[item["type"]]
    message = item["msg"]
    return (
        "it must be" + message.removeprefix("Input should be")
        if message.startswith("Input should be")
        else message
    )


def _short(value: Any) -> str:
    text = repr(value) if isinstance(value, str) else str(value)
    return text if len(text) <= 60 else text[:57] + "..."
