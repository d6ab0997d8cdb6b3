"""The verbs that look at data, and write shards."""

from pathlib import Path
from typing import Annotated

import typer

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

    packing = settings_of(Packing, changes or [])
    packed = pack(source, out, packing)
    print(packed)
    print(gain(source, packed, allow_pipe=packing.allow_pipe))


def inspect(
    source: Annotated[str, typer.Argument(help="whatever pack and train can read", show_default=False)],
    sheet: Annotated[Path | None, typer.Argument(help="PNG to write a contact sheet to")] = None,
) -> None:
    """Say what is in a data set, with a contact sheet if asked for."""
    from pipelines.inspect import inspect_splits
    from pipelines.sheet import contact_sheet

    for split, contents in inspect_splits(source).items():
        print(contents)
        if sheet is not None:
            path = sheet.with_stem(f"{sheet.stem}_{split}") if split else sheet
            contact_sheet(source, path, split=split or None)
            print(f"  sheet        {path}")


def verify(
    source: Annotated[str, typer.Argument(help="shards, a packed folder, images, a zip", show_default=False)],
    changes: Changes = None,
) -> None:
    """Check shards against their checksums and indexes, and decode every image (fast=true: without that)."""
    from pipelines.verify import Verify, verify
    from raymask.overrides import settings_of

    found = verify(source, settings_of(Verify, changes or []))
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
