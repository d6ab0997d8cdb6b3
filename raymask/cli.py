"""The command line: the one place that wires everything. Heavy imports stand inside the verb that needs them.

What a user can cause ends in one sentence on stderr and exit code 2, a failure on the way in exit code 1;
debug=true shows the traceback of what no sentence of ours explains.
"""

import os
import sys
import warnings
from pathlib import Path
from typing import Annotated

import typer

from raymask.cli_data import bench, inspect, pack, verify
from raymask.cli_jobs import say, status, stop, submit
from raymask.cli_kinds import Address, Changes, RunOrCheckpoint, RunPath
from raymask.settings_help import with_settings
from raymask.signals import exit_on_sigterm
from raymask.usage import UsageError, refusal
from raymask.which import run_or_path, the_run

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Masked distillation of Vision Transformers: from a folder of images to a backbone.",
)


@app.command()
def train(
    preset: Annotated[
        str, typer.Argument(metavar="PRESET|CONFIG", help="name of a preset or path of a YAML file")
    ],
    changes: Changes = None,
) -> None:
    """Train a backbone: raymask train dino-random-mask-laptop data=photos.

    In this process, or by several workers on a Ray cluster: workers=4.
    """
    from raymask.config import anchored, load

    config = anchored(load(preset, changes or []))
    if config.workers is None:
        from raymask.train import train

        _done(train(config))
    else:
        say("torch and Ray are loaded, and start the workers: that takes half a minute")
        from raymask.distributed.launch import train_on_ray

        _done(train_on_ray(config))


@app.command()
def resume(run: RunPath, changes: Changes = None) -> None:
    """Continue a run from its last checkpoint, here or on the workers it had (workers=N changes that).

    A search goes on with the trials that it has left.
    """
    from raymask.standing import finished, state_of

    run = the_run(run)
    if not changes and state_of(run) == "finished":
        print(finished(run))
        return
    if (run / "search.yaml").exists():
        from raymask.distributed.tune import resume_tune

        _reported(resume_tune(run, changes=changes or []))
        return
    from raymask.train import changed, resume

    if changed(run, changes or []).workers is None:
        _done(resume(run, changes or []))
    else:
        from raymask.distributed.launch import resume_on_ray

        _done(resume_on_ray(run, changes or []))


@app.command()
def tune(
    space: Annotated[
        str,
        typer.Argument(metavar="SPACE", help="a name in tune_spaces/, or a Python file", show_default=False),
    ],
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="preset=PRESET budget=IMAGES [KEY=VALUE]...",
            help="settings of the search (trials, metric, ...) and of every trial",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Search settings: raymask tune mask_ratio preset=dino-random-mask-laptop budget=400000 data=photos."""
    from raymask.distributed.tune import tune

    _reported(tune(space, words or []))


for verb, settings in (
    (pack, "pipelines.plan:Packing"),
    (inspect, "pipelines.inspect:Inspect"),
    (verify, "pipelines.verify:Verify"),
    (bench, "raymask.bench:Bench"),
):
    app.command(cls=with_settings(settings))(verb)


@app.command()
def evaluate(
    run: RunOrCheckpoint,
    changes: Changes = None,
) -> None:
    """Measure a backbone on the held-out split: raymask evaluate runs/a evaluate.linear=true.

    What was trained on labels also answers by its own classifier: eval/top1 and eval/top5.
    """
    from raymask.evaluate import evaluate_run

    for name, value in evaluate_run(run_or_path(run), changes or [], say=say).items():
        print(f"{name:24s} {value:.4f}")


@app.command()
def export(run: RunOrCheckpoint, changes: Changes = None) -> None:
    """Write a folder that plain timm opens, and compare the two. Settings: out=FOLDER network=student.

    What was trained on labels keeps its classifier, both heads of a student with a distillation token.
    """
    from typing import Literal

    from pipelines.settings import Settings
    from raymask.export import export
    from raymask.overrides import settings_of

    class Exporting(Settings):
        out: str | None = None
        network: Literal["teacher", "student"] | None = None  # the one that the run evaluates

    chosen = settings_of(Exporting, changes or [])
    print(export(run_or_path(run), out=chosen.out, network=chosen.network))


@app.command()
def report(run: RunPath, changes: Changes = None) -> None:
    """Write report.html of a run (curves, masks, attention, cost) or of a search. Setting: out=FILE."""
    from pipelines.settings import Settings
    from raymask.overrides import settings_of
    from raymask.report import write_report

    class Reporting(Settings):
        out: str | None = None

    print(write_report(the_run(run), out=settings_of(Reporting, changes or []).out))


@app.command()
def demo(
    data: Annotated[str, typer.Argument(help="images of your own; without, 10,000 of Fashion-MNIST")] = "",
    out: Annotated[str, typer.Argument(help="folder for shards and runs")] = "demo",
    changes: Changes = None,
) -> None:
    """The main job on real images in a few minutes: pack, train, evaluate, export, report."""
    from raymask.demo import Demo, demo

    demo(Demo(data=data or None, out=out), tuple(changes or ()))


@app.command()
def doctor(
    data: Annotated[
        str | None, typer.Argument(metavar="[DATA]", help="a data set to look at as well")
    ] = None,
    address: Address = None,
) -> None:
    """Say whether this machine, this data and the cluster at --address are set up right."""
    from raymask.doctor import examine

    right = True
    for finding in examine(data, cluster=address):
        print(f"{'ok   ' if finding.ok else 'WRONG'}  {finding.what:14s} {finding.said}", flush=True)
        right = right and finding.ok
    if not right:
        raise typer.Exit(1)


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
            "\n    ".join(
                [known, said["paper"], f"masks: {said['masks']}", f"differs: {said['differs'].strip()}"]
            )
        )
    print(f"\nEach also as NAME{presets.LAPTOP}: the same shape, small enough for a laptop.")


for asking in (submit, status, stop):
    app.command()(asking)


def _reported(search: Path) -> None:
    """Writes the report of a search that has ended."""
    from raymask.report import write_report

    print(f"report: {write_report(search)}")


def _done(run: Path) -> None:
    """Writes the report of a run that has ended, and says where things are."""
    from raymask.report import write_report

    if os.environ.get("RANK", "0") == "0":
        print(f"report: {write_report(run)}\nrun: {run}")


def main() -> None:
    """The `raymask` command."""
    # Pillow's remarks on a file name no file; what cannot be used is counted and named by its reader.
    warnings.filterwarnings("ignore", module=r"PIL\.")
    exit_on_sigterm()
    from raymask.failures import exit_code, explains_itself, leave, sentence, was_asked_to_stop

    try:
        code = app(standalone_mode=False) or 0
    except UsageError as error:
        print(refusal(error), file=sys.stderr)
        code = 2
    except typer.Abort:  # Ctrl-C, as older versions of typer pass it on
        code = 130
    except SystemExit as ended:  # by SIGTERM
        leave(int(ended.code or 0))
    except Exception as error:
        code, stopped = exit_code(error), was_asked_to_stop(error)
        if code is None or ("debug=true" in sys.argv and not explains_itself(error)):
            raise
        rank = os.environ.get("RANK", "0")  # under torchrun: what only one process met must not be lost
        if rank == "0" or not stopped:
            print(f"rank {rank}: {sentence(error)}" if rank != "0" else sentence(error), file=sys.stderr)
    leave(code)
