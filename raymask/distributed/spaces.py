"""The spaces that come with raymask, by name. Nothing heavy is imported."""

from importlib.resources import files
from pathlib import Path


def names() -> list[str]:
    """The spaces that come with raymask."""
    found = (Path(entry.name) for entry in files("tune_spaces").iterdir())
    return sorted(path.stem for path in found if path.suffix == ".py" and not path.stem.startswith("_"))
