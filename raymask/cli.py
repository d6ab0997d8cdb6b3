"""The command line: the one place that wires everything. Heavy things are imported inside the verb that needs them.

What a user can cause ends in one sentence on stderr and exit code 2, a failure on the way in exit code 1;
debug=true shows the traceback as well.
"""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Masked distillation of Vision Transformers, from a folder of images to an evaluated backbone.",
)

Changes = Annotated[
    list[str] | None,
    typer.Argument(metavar="[KEY=VALUE]...", help="settings, such as train.epochs=10", show_default=False),
]
RunPath = Annotated[Path, typer.Argument(metavar="RUN", help="directory of a run", show_default=False)]


@app.command()
def train(
    preset: Annotated[
        str, typer.Argument(metavar="PRESET|CONFIG", help="name of a preset or path of a YAML file")
    ],
    changes: Changes = None,
) -> None:
    """Train a backbone, e.g. raymask train dino-random-mask-laptop data=photos."""
    from raymask.config import load
    from raymask.train import train

    _done(train(load(preset, changes or [])))


@app.command()
def resume(run: RunPath, changes: Changes = None) -> None:
    """Continue a run from its last checkpoint."""
    from raymask.train import resume

    _done(resume(run, changes or []))


@app.command()
def presets(
    name: Annotated[
        str | None, typer.Argument(metavar="[PRESET]", help="show the settings of this one")
    ] = None,
) -> None:
    """List the presets, or print one as YAML."""
    from raymask import presets

    if name is not None:
        from raymask.config import load, to_yaml

        print(to_yaml(load(name)), end="")
        return
    for known in presets.names():
        said = presets.about(known)
        print(
            f"{known}\n    {said['paper']}\n    masks: {said['masks']}\n    differs: {said['differs'].strip()}"
        )
    print(f"\nEach also as NAME{presets.LAPTOP}: the same shape, small enough for a laptop.")


def _done(run: Path) -> None:
    if os.environ.get("RANK", "0") == "0":
        print(run)


def main() -> None:
    """The `raymask` command."""
    try:
        app()
    except Exception as error:
        if "debug=true" in sys.argv:
            raise
        code = _exit_code(error)
        if code is None:
            raise
        if os.environ.get("RANK", "0") == "0" or code == 1:
            print(_sentence(error), file=sys.stderr)
        sys.exit(code)


def _exit_code(error: Exception) -> int | None:
    """What an error means to the shell; None for our own mistakes, whose traceback is wanted."""
    from raymask.signals import Stopped

    if isinstance(error, Stopped):
        return error.exit_code
    if isinstance(error, ValueError):
        return 2
    if isinstance(error, OSError | MemoryError) or _is_known_failure(error):
        return 1
    return None


def _is_known_failure(error: Exception) -> bool:
    """Whether a run failed for a reason that its message tells: a loss that is not finite, a device out of memory."""
    return type(error).__name__ in ("Diverged", "OutOfMemoryError")


def _sentence(error: Exception) -> str:
    """The error in one sentence for each thing that is wrong."""
    if type(error).__name__ == "OutOfMemoryError" or isinstance(error, MemoryError):
        return "raymask: out of memory: a smaller train.chunk computes the same step in smaller parts"
    if isinstance(error, OSError) and error.strerror:
        where = f": {error.filename}" if error.filename else ""
        return f"raymask: {error.strerror.lower()}{where}"
    return "\n".join(f"raymask: {line}" for line in str(error).splitlines())
