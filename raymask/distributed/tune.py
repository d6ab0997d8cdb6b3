"""`raymask tune`: a search over a space, as trials that are ordinary runs.

    TUNE_RUN/search.yaml    the search, complete; space.py: the space as it was
    TUNE_RUN/results.json   what came out, kept up to date
    TUNE_RUN/best.yaml      the best trial, for `raymask train`
    TUNE_RUN/trials/ID/     run directories
    TUNE_RUN/ray/           Tune's own notes, of no use once it has ended

Nothing of Tune's is read again: a search whose driver was killed goes on from results.json and the trials'
own checkpoints, so no pickle is ever opened.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from signal import SIGTERM
from typing import Any

import yaml

from pipelines.lock import lock
from raymask.config import Config, load, to_tree
from raymask.distributed.bootstrap import connected
from raymask.distributed.found import FILE as BEST
from raymask.distributed.found import absolute, command_of, preset_of, write_preset
from raymask.distributed.inquiry import Inquiry, inquire
from raymask.distributed.job_command import paths, replaced, settings
from raymask.distributed.results import Record, Results
from raymask.distributed.search import Search, parse
from raymask.distributed.space import open_space
from raymask.overrides import read_yaml
from raymask.run import LOCK
from raymask.signals import Stopped, StopRequest, asked_to_stop, forget_stop

SEARCH = "search.yaml"
SPACE = "space.py"


def tune(space: str, words: Sequence[str] = ()) -> Path:
    """Searches, and returns the directory of the search. `words`: its settings, and changes for every trial.

    Raises ValueError, before anything is started, where the search cannot work.
    """
    search, changes = parse(space, words)
    base = load(search.preset, changes)
    search, changes = _from_anywhere(search, changes, base)
    inquiry = inquire(search, base, open_space(space))
    folder = inquiry.folder
    if folder.exists():
        if base.run.resume and (folder / SEARCH).exists():
            return resume_tune(folder, asked=_described(inquiry, changes))
        how = f"continue it with 'raymask resume {folder}', or name" if (folder / SEARCH).exists() else "name"
        raise ValueError(f"{folder} exists and is never overwritten: {how} another with name=NAME")
    folder.mkdir(parents=True)
    with _alone(folder):
        (folder / SEARCH).write_text(yaml.safe_dump(_described(inquiry, changes), sort_keys=False))
        (folder / SPACE).write_text(inquiry.space.text)
        return _run(inquiry)


def resume_tune(folder: Path, *, changes: Sequence[str] = (), asked: dict | None = None) -> Path:
    """Goes on with a search whose process was ended, from what its trials had saved.

    asked: the same search described anew, where a command is repeated. Raises ValueError if it is another,
    or if anything shall change.
    """
    if changes:
        raise ValueError(
            f"a search goes on as it began, without {' '.join(changes)}: start a new one instead"
        )
    folder = folder.resolve()
    tree = read_yaml((folder / SEARCH).read_text(), where=str(folder / SEARCH))
    if asked is not None and asked != tree:
        keys = [key for key in tree["search"] if tree["search"][key] != asked["search"].get(key)]
        keys += ["the changes of its trials"] * (tree["changes"] != asked["changes"])
        raise ValueError(
            f"{folder} is another search ({', '.join(keys)} differ): name this one with name=NAME"
        )
    with _alone(folder):  # before anything else is looked at or said
        search = Search.model_validate(tree["search"])
        base = load(search.preset, tree["changes"])
        space = replace(open_space(str(folder / SPACE)), name=Path(search.space).stem)
        return _run(inquire(search, base, space))


def is_search(folder: Path) -> bool:
    """Whether a directory is that of a search."""
    return (folder / SEARCH).exists()


def _from_anywhere(search: Search, changes: list[str], base: Config) -> tuple[Search, list[str]]:
    """The same with absolute paths for relative ones, so that it goes on from any working directory."""
    named = ((key, Path(path)) for key, path in paths(to_tree(base)))
    here = {key: str(path.absolute()) for key, path in named if path.exists() and not path.is_absolute()}
    kept = [change for change in changes if not replaced(change, here)]
    preset = absolute(search.preset)
    return search.model_copy(update={"preset": preset}), [*kept, *settings(here)]


def _described(inquiry: Inquiry, changes: Sequence[str]) -> dict[str, Any]:
    kept = [change for change in changes if not change.startswith("run.resume=")]
    return {"search": inquiry.search.model_dump(mode="json"), "changes": kept}


def _run(inquiry: Inquiry) -> Path:
    """Runs what is left of a search, in whose directory nobody else does, and writes what it found."""
    results = _results(inquiry)
    ended = [record for record in results.records.values() if record.state != "running"]
    print(f"{inquiry.space.question}\n{inquiry.describe()}", flush=True)
    if len(ended) < inquiry.search.trials:
        with StopRequest() as stop:
            forget_stop(inquiry.folder)
            with connected(inquiry.base.cluster, logs=inquiry.base.debug):
                from raymask.distributed.tuning import run_trials

                run_trials(inquiry, results, stop)
        if asked_to_stop(inquiry.folder) and _is_unfinished(results, trials=inquiry.search.trials):
            again = f"continue with 'raymask resume {inquiry.folder}'"
            raise Stopped(f"stopped; {again}", exit_code=128 + (stop.received or SIGTERM))
    _conclude(inquiry, results)
    return inquiry.folder


def _is_unfinished(results: Results, *, trials: int) -> bool:
    """Whether a trial has not ended, or never began."""
    states = [record.state for record in results.records.values()]
    return len(states) < trials or "running" in states


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Keeps others from searching in `folder`. Raises ValueError where somebody does."""
    with (folder / LOCK).open("ab") as held:
        lock(held, busy=f"another process searches in {folder}: wait for it to end, or stop it")
        yield


def _results(inquiry: Inquiry) -> Results:
    search = inquiry.search
    about = {
        "space": inquiry.space.name,
        "question": inquiry.space.question,
        "preset": search.preset,
        "metric": search.metric,
        "mode": search.mode,
    }
    results = Results(inquiry.folder, about, inquiry.objectives)
    results.recall()
    return results


def _conclude(inquiry: Inquiry, results: Results) -> None:
    """Writes best.yaml and says what was found. Raises ValueError where every trial failed."""
    best, folder = results.best(), inquiry.folder
    if best is None:
        errors = sorted({record.error for record in results.records.values() if record.error})
        results.write()
        raise ValueError(f"no trial of {folder} came to an evaluation: {'; '.join(errors[:3])}")
    config = inquiry.assignment.config(best.id, best.values)
    results.command = command_of(config, preset=inquiry.search.preset)
    results.write()
    about = {
        "paper": f"found by raymask tune {inquiry.space.name}",
        "masks": inquiry.space.question.splitlines()[0],
        "differs": f"{inquiry.search.metric} {best.curve[-1][1]:.4g} after {best.images} images",
    }
    write_preset(folder / BEST, preset_of(config, preset=inquiry.search.preset, about=about))
    print(*summary(results, best, folder), sep="\n", flush=True)


def summary(results: Results, best: Record, folder: Path) -> list[str]:
    """What a search found, for a terminal."""
    lines = [f"best: {best.id} with {results.about['metric']} {best.curve[-1][1]:.4g}"]
    alike = [record.id for record in results.records.values() if _is_level(record, best)]
    if len(alike) > 1:
        lines.append(f"{', '.join(alike)} reached that very value: the search does not tell them apart")
    if len(results.objectives) > 1:
        lines.append("front: " + "; ".join(_point(results, record) for record in results.front()))
    return [*lines, f"  {results.command}", f"  raymask train {folder / BEST}", f"search: {folder}"]


def _is_level(record: Record, best: Record) -> bool:
    return bool(record.curve) and record.curve[-1][1] == best.curve[-1][1]


def _point(results: Results, record: Record) -> str:
    scores = results.scores(record) or ()
    named = (f"{name} {score:.4g}" for (name, _), score in zip(results.objectives, scores))
    return f"{record.id} ({', '.join(named)})"
