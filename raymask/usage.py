"""What is said where a command line lacks something, or has too much: what can be given, what lists it."""

from collections.abc import Callable

import typer

from raymask.which import some_runs

# typer keeps its copy of click to itself, and older ones use click's own.
UsageError: type[Exception] = typer.BadParameter.__mro__[1]


def refusal(error: Exception) -> str:
    """The sentence for a command line that cannot be taken; `raymask` alone gets the list of its verbs."""
    kind, context = type(error).__name__, getattr(error, "ctx", None)
    verb = context.info_name if context is not None and context.parent is not None else None
    said = getattr(error, "format_message", lambda: str(error))().rstrip(".")
    if kind == "NoArgsIsHelpError":
        return said
    if verb is None:
        return f"raymask: {_lowered(said)}: 'raymask --help' lists the verbs"
    parameter = getattr(error, "param", None)
    needed = _NEEDED.get((verb, parameter.name)) or _NEEDED.get(parameter.name) if parameter else None
    if kind == "MissingParameter" and needed is not None:
        return f"raymask: '{verb}' needs {needed()}"
    settings = "; settings are given as KEY=VALUE" if kind == "NoSuchOption" else ""
    return f"raymask: '{verb}': {_lowered(said)}{settings}; 'raymask {verb} --help' says what it takes"


def _lowered(text: str) -> str:
    return text[:1].lower() + text[1:]


def _preset() -> str:
    from raymask import presets

    return (
        f"a preset ({', '.join(presets.names())}, each also as NAME{presets.LAPTOP}; 'raymask presets' "
        "describes them) or a YAML file, such as: raymask train dino-random-mask-laptop data=photos"
    )


def _space() -> str:
    from raymask.distributed.spaces import names

    return (
        f"a space, which says what is searched ({', '.join(names())}; docs/tune.md describes them), or a "
        "Python file, such as: raymask tune mask_ratio preset=dino-laptop budget=400000 data=photos"
    )


def _what_to_submit() -> str:
    return (
        "train or tune and all that follows these words (see 'raymask train --help', 'raymask tune --help'), "
        "such as: raymask submit train dino-random-mask data=/mnt/shared/photos run.root=/mnt/shared/runs"
    )


def _run() -> str:
    return f"the directory of a run or a search, or its name in runs/: {some_runs()}"


def _run_or_job() -> str:
    return f"the directory of a run or a search, its name in runs/, or the name of a job: {some_runs()}"


def _trained() -> str:
    return f"a run, one of its checkpoints (RUN/checkpoints/step_N) or an export: {some_runs()}"


def _data() -> str:
    return "data: a folder of images, a zip, shards or their URL"


def _out() -> str:
    return "a new folder for the shards as well, such as: raymask pack photos shards holdout=0.1"


# By the name of the argument, for all verbs or for one.
_NEEDED: dict[str | tuple[str, str], Callable[[], str]] = {
    "preset": _preset,
    "space": _space,
    "verb": _what_to_submit,
    "run": _run,
    ("status", "run"): _run_or_job,
    ("stop", "run"): _run_or_job,
    ("evaluate", "run"): _trained,
    ("export", "run"): _trained,
    "source": _data,
    "out": _out,
}
