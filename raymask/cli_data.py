"""The verbs that look at data, and write shards."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from pipelines.names import shown
from raymask.cli_kinds import Changes


def pack(
    source: Annotated[
        str, typer.Argument(help="a folder of images, a zip, tars or an IDX file", show_default=False)
    ],
    out: Annotated[Path, typer.Argument(help="a new folder for the shards", show_default=False)],
    changes: Changes = None,
) -> None:
    """Pack images into shards, or shards into others: raymask pack photos shards holdout=0.1 format=ffcv."""
    from pipelines.gain import gain
    from pipelines.pack import Packing, pack
    from raymask.overrides import settings_of

    packing = settings_of(Packing, _after(source, changes, such_as="holdout=0.1"))
    packed = pack(source, out, packing)
    print(packed)
    print(gain(source, packed, cache=packing.cache, allow_pipe=packing.allow_pipe))


def inspect(
    source: Annotated[str, typer.Argument(help="whatever pack and train can read", show_default=False)],
    changes: Changes = None,
) -> None:
    """Say what is in a data set, and draw some of its images: raymask inspect shards sheet=sheet.png."""
    from pipelines.inspect import Inspect, inspect_splits
    from pipelines.sheet import check_place, contact_sheet
    from raymask.overrides import settings_of

    asked = settings_of(Inspect, _after(source, changes, such_as="sheet=sheet.png"))
    sheet = Path(asked.sheet).expanduser() if asked.sheet is not None else None
    if sheet is not None:
        check_place(sheet)
    for split, contents in inspect_splits(source, cache=asked.cache).items():
        print(contents)
        if sheet is not None:
            path = sheet.with_stem(f"{sheet.stem}_{split}") if split else sheet
            contact_sheet(source, path, split=split or None, cache=asked.cache)
            print(f"  sheet        {path}")


def verify(
    source: Annotated[str, typer.Argument(help="shards, a packed folder, images, a zip", show_default=False)],
    changes: Changes = None,
) -> None:
    """Check shards against their checksums and indexes, and decode every image (fast=true: without that)."""
    from pipelines.verify import Verify, verify
    from raymask.overrides import settings_of

    found = verify(source, settings_of(Verify, _after(source, changes, such_as="fast=true")))
    print(found)
    if not found.whole:
        raise typer.Exit(1)


def bench(
    changes: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="data=PATH [KEY=VALUE]...",
            help="settings of the data, batch, seconds",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Measure how fast data come, and say what limits them and what to change: raymask bench data=shards."""
    from raymask.bench import Bench, bench
    from raymask.overrides import settings_of

    for line in bench(settings_of(Bench, changes or [])):
        print(line, flush=True)


def _after(source: str, changes: Sequence[str] | None, *, such_as: str) -> Sequence[str]:
    """The settings behind the path of a data set. Raises ValueError where more paths stand there.

    A shell makes several words of `*.tar`: taking any but the first for something else would be a guess.
    """
    for word in changes or ():
        if "=" not in word:
            raise ValueError(
                f"{shown(word)} is no setting (KEY=VALUE, such as {such_as}), and one data set is looked at "
                f"in a go, here {shown(source)}: several shards are named together, in quotes: 'a-*.tar', "
                "'a-{000..127}.tar', @LIST"
            )
    return changes or ()
