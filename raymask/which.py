"""Which run or search a word on the command line means: a directory, or a name in runs/."""

import os
from difflib import get_close_matches
from pathlib import Path

from raymask.driver import is_driven

_MARKS = ("config.yaml", "search.yaml")
_SHOWN = 8  # runs that are named where none was meant


def is_run(folder: Path) -> bool:
    """Whether a directory is that of a run or of a search."""
    return any(os.path.exists(folder / mark) for mark in _MARKS)  # noqa: PTH110 (false where it may not be read)


def find_run(given: Path | str) -> Path | None:
    """The directory that is meant: as given, or of that name in runs/; None where there is none.

    That of a run that only starts need not be there yet.
    """
    places = _places(given)
    return next((folder for folder in places if is_run(folder)), None) or next(
        (folder for folder in places if is_driven(folder)), None
    )


def the_run(given: Path) -> Path:
    """The same. Raises ValueError where there is none."""
    found = find_run(given)
    if found is None:
        raise ValueError(no_run(given))
    return found


def run_or_path(given: Path) -> Path:
    """The same, or the path as given where something else is there: a checkpoint, an export.

    Raises ValueError where there is nothing.
    """
    return given if given.exists() else the_run(given)


def no_run(given: Path | str, *, elsewhere: str = "") -> str:
    """What is said where nothing is found: where it was looked for, and which runs there are.

    elsewhere: where else it was
    """
    places = _places(given)
    looked = " and ".join(str(place.absolute()) for place in places)
    said = f"there is no run '{given}' (looked for {looked}{', and ' + elsewhere if elsewhere else ''})"
    if places[0].is_dir():
        said = f"'{given}' is no run: the directory holds neither {' nor '.join(_MARKS)}"
    known = [below for place in dict.fromkeys((places[0].parent, _root())) for below in _runs_in(place)]
    near = get_close_matches(places[0].name, [folder.name for folder in known], n=1, cutoff=0.6)
    if near:
        return f"{said}; did you mean {next(folder for folder in known if folder.name == near[0])}?"
    return f"{said}; {_named(known)}"


def some_runs() -> str:
    """Which runs there are in runs/, or that there are none."""
    return _named(_runs_in(_root()))


def _named(known: list[Path]) -> str:
    """The newest of some runs, in words."""
    if not known:
        return f"none has begun in {_root()}/; one elsewhere is given by its directory (run.root/run.name)"
    newest = sorted(known, key=lambda folder: folder.stat().st_mtime, reverse=True)
    more = f" and {len(known) - _SHOWN} more" if len(known) > _SHOWN else ""
    return f"there {'are' if len(known) > 1 else 'is'} {', '.join(map(str, newest[:_SHOWN]))}{more}"


def _places(given: Path | str) -> list[Path]:
    return list(dict.fromkeys((Path(given).expanduser(), _root() / given)))


def _runs_in(place: Path) -> list[Path]:
    return sorted(folder for folder in place.glob("*") if is_run(folder))


def _root() -> Path:
    """Where runs are written if nothing is said."""
    from raymask.run import Run  # heavy: only where something is sought

    return Path(Run().root)
