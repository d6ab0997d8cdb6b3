"""What the label files of a WebDataset sample say: a number, the name of a class, or nothing."""

import json
from typing import Any

from pipelines.names import shown_bytes

MAX_CLASSES = (
    1 << 20
)  # a larger number is an identifier of something else, and would cost memory for each class
NUMBER_FIELDS = ("label", "cls", "class_id", "target", "class")
NAME_FIELDS = ("class_name", "label_name", "category", "synset")
MAX_NAME = 255  # characters
SHOWN = 40


class Labels:
    """The labels of one shard, gathered sample by sample; `finish` numbers the classes that are named.

    unusable: how many said something that is no label, and count as none; example: the first one
    """

    def __init__(self) -> None:
        self.unusable, self.example = 0, ""
        self._values: list[int | str] = []
        self._from_text: list[bool] = []
        self._captions = False

    def add(self, kind: str, text: bytes, name: bytes = b"") -> None:
        """The label of the next sample: what its `cls`, `json` or `txt`, called `name`, holds; "" without."""
        value: int | str | None = -1
        if kind == "txt":
            value = _word(text)
            self._captions |= value == ""
        elif kind:
            value = _of_json(text) if kind == "json" else _of_value(text.decode("utf-8-sig", "replace"))
        if value is None:
            self.unusable += 1
            self.example = self.example or f"{shown_bytes(name)}, which holds {text[:SHOWN]!r}"
        self._values.append(-1 if value is None else value)
        self._from_text.append(kind == "txt")

    def finish(self) -> tuple[list[int], tuple[str, ...]]:
        """The numbers, -1 without, and the names that they number, () where the shard has numbers of its own.

        A txt is a label where every txt of the shard is a single word; else they are captions, and no labels.
        """
        values = [
            -1 if text and self._captions else value for value, text in zip(self._values, self._from_text)
        ]
        named = sorted({value for value in values if isinstance(value, str)})
        if not named:
            return [int(value) for value in values], ()
        if any(isinstance(value, int) and value >= 0 for value in values):
            raise ValueError(
                f"some of its labels are numbers, others names such as {named[0]!r}: use one kind"
            )
        numbers = {name: number for number, name in enumerate(named)}
        return [numbers.get(value, -1) if isinstance(value, str) else -1 for value in values], tuple(named)


def _of_json(text: bytes) -> int | str | None:
    """What a JSON document says: itself, or the first of its fields of a known name that is not empty.

    Other tools write fields of these names, too, for something else: lists, objects and "" are passed over.
    """
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, dict):
        return _of_value(value)
    there = [value[name] for name in (*NUMBER_FIELDS, *NAME_FIELDS) if value.get(name) is not None]
    plain = [each for each in there if not isinstance(each, dict | list) and str(each).strip()]
    return _of_value(plain[0]) if plain else (None if there else -1)


def _of_value(value: Any) -> int | str | None:
    """A whole number below 2**20, a name, or -1 where nothing is said; None for what is no label."""
    if value is None:
        return -1
    if isinstance(value, str):
        value = value.strip()
        if value and not _is_number(value) and value.isprintable() and len(value) <= MAX_NAME:
            return value
        value = int(value) if _is_whole(value) else None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not -1 <= value < MAX_CLASSES:
        return None
    return value


def _word(text: bytes) -> int | str:
    """The number or the single word in a text; "" for a caption."""
    word = text.strip().decode("utf-8", "replace")
    if len(word.split()) != 1 or not word.isprintable() or len(word) > MAX_NAME:
        return ""
    if _is_whole(word) and -1 <= int(word) < MAX_CLASSES:
        return int(word)
    return "" if _is_number(word) else word


def _is_whole(text: str) -> bool:
    digits = text.removeprefix("-")
    return digits.isascii() and digits.isdigit() and len(digits) < 20


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
