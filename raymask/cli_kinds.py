"""What several verbs of the command line take."""

from pathlib import Path
from typing import Annotated

import typer

Changes = Annotated[
    list[str] | None,
    typer.Argument(metavar="[KEY=VALUE]...", help="settings, such as train.epochs=10", show_default=False),
]
RunOrCheckpoint = Annotated[
    Path,
    typer.Argument(
        metavar="RUN|CHECKPOINT",
        help="a run (directory, or name in runs/), one of its checkpoints",
        show_default=False,
    ),
]
Address = Annotated[
    str | None, typer.Option(metavar="URL", help="of the cluster's dashboard, if not http://127.0.0.1:8265")
]
RunPath = Annotated[
    Path, typer.Argument(metavar="RUN", help="directory, or name in runs/", show_default=False)
]
