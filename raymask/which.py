"""Which run or search a word on the command line means: a directory, or a name in runs/."""

from difflib import get_close_matches
from pathlib import Path

_MARKS = ("config.yaml", "search.yaml")


def is_run(folder: Path) -> bool:
    """Whether a directory is that of a run or of a search."""
    return any((folder / mark).exists() for mark in _MARKS)


def find_run(given: Path | str) -> Path | None:
    """The directory that is meant: as given, or of that name in runs/; None where there is none."""
    places = (Path(given).expanduser(), _root() / given)
    return next((folder for folder in places if is_run(folder)), None)


def run_or_path(given: Path) -> Path:
    """The same, or the path as given, for whoever refuses it better."""
    return given if given.exists() else find_run(given) or given


def no_run(given: Path | str, *, elsewhere: str) -> str:
    """What is said where nothing is found: which run is called alike, or where it was looked for."""
    path, root = Path(given).expanduser(), _root()
    known = [below for place in dict.fromkeys((path.parent, root)) for below in _runs_in(place)]
    near = get_close_matches(path.name, [folder.name for folder in known], n=1, cutoff=0.6)
    if near:
        folder = next(folder for folder in known if folder.name == near[0])
        return f"there is no run '{given}' here: did you mean {folder}?"
    return f"there is no run '{given}' here, and none of that name in {root}/; {elsewhere}"


def _runs_in(place: Path) -> list[Path]:
    return sorted(folder for folder in place.glob("*") if is_run(folder))


def _root() -> Path:
    """Where runs are written if nothing is said."""
    from raymask.run import Run  # heavy: only where something is sought

    return Path(Run().root)
