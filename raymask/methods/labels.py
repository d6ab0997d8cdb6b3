"""Methods that learn from labels, and the data that must have them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipelines.source import Source

if TYPE_CHECKING:
    from raymask.config import Config


def with_classes(config: Config, source: Source) -> Config:
    """`config` with the number of classes of its data, where its method learns from labels.

    Raises ValueError where labels are missing, the numbers differ, or a frozen teacher is to be evaluated.
    """
    method = config.method
    if "classes" not in type(method).model_fields:
        return config
    there, missing = len(source.classes), int((source.labels < 0).sum())
    if there < 2 or missing:
        lack = (
            f"{missing:,} of its {len(source):,} images have none{_unusable(source)}"
            if missing
            else "all its images are of one class"
        )
        raise ValueError(
            f"method.kind={method.kind} learns from the labels of data.train={config.data.train}, "
            f"but {lack}: give images in two or more folders, one for each class, or shards packed from such"
        )
    given = getattr(method, "classes", None)
    if given not in (None, there):
        raise ValueError(f"method.classes={given}, but data.train={config.data.train} has {there} classes")
    if config.evaluate.network == "teacher":
        raise ValueError(
            f"evaluate.network=teacher, but the teacher of method.kind={method.kind} is frozen: "
            "give evaluate.network=student"
        )
    return config.model_copy(update={"method": method.model_copy(update={"classes": there})})


def _unusable(source: Source) -> str:
    notes = source.notes
    if not notes.labels:
        return ""
    return f" ({notes.labels:,} because their label is neither a number nor a name, such as {notes.label})"
