"""A copy of a run directory behind a URL, for machines that share no disk or may lose theirs.

Files go there with every checkpoint; `checkpoints/last` goes last, when all the others are complete, so that
whatever dies whenever, it names a whole checkpoint. Where there is a mirror it is the truth: a run continues
from what it names, and what a machine lacks of that is brought there first.
"""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

from pipelines.remote import store
from pipelines.remote.retry import Failure, patiently
from pipelines.remote.urls import below, public
from raymask import checkpoint
from raymask.run import Run, refuse_existing
from raymask.sharded import written_by

T = TypeVar("T")

_PATIENCE = 600.0  # seconds for which one file may fail to go through
_RUN = (
    "config.yaml",
    "env.json",
    "metrics.jsonl",
    "train.log",
    "bad_samples*.jsonl",
    "eval/*.json",
    "trackers*",
)


def mirror_of(run: Run) -> "Mirror | None":
    """The mirror of a run, if it has one."""
    return None if run.mirror is None else Mirror(below(run.mirror, run.folder().name))


def refuse_taken(run: Run) -> None:
    """Raises ValueError where there is a run of that name, here or in its mirror, unless it is continued."""
    if run.resume:
        return
    refuse_existing(run.folder())
    mirror = mirror_of(run)
    if mirror is not None and mirror.holds_a_run():
        raise ValueError(
            f"run.mirror={run.mirror} holds a run named {run.name}: continue it with run.resume=true, or "
            "name another with run.name=NAME"
        )


def bring_run(run: Run) -> None:
    """Brings a run to this machine as it is in its mirror, if it has one."""
    mirror = mirror_of(run)
    if mirror is not None:
        mirror.bring_run(run.folder())


@dataclass(frozen=True)
class Mirror:
    """The run directory behind `url`. Its methods raise OSError for what does not go through."""

    url: str

    def send_run(self, run: Path) -> None:
        """Copies what a run wrote beside its checkpoints."""
        for path in sorted(path for pattern in _RUN for path in run.glob(pattern) if path.is_file()):
            self._send(path, str(path.relative_to(run)))

    def send_share(self, folder: Path, name: str, *, rank: int) -> None:
        """Copies one rank's files in `folder` into the checkpoint `name`."""
        for path in sorted(path for path in folder.rglob("*") if path.is_file() and written_by(path, rank)):
            self._send(path, f"checkpoints/{name}/{path.relative_to(folder)}")

    def holds_a_run(self) -> bool:
        """Whether a run is there."""
        return "config.yaml" in self._sizes("")

    def point(self, name: str, *, keep: int) -> None:
        """Makes a checkpoint, of which every file was sent, the one to continue from; keeps the newest."""
        with tempfile.TemporaryDirectory() as folder:
            pointer = Path(folder) / checkpoint.LAST
            pointer.write_text(name + "\n")
            self._send(pointer, f"checkpoints/{checkpoint.LAST}")
        there = {path.split("/")[0] for path in self._sizes("checkpoints")} - {checkpoint.LAST}
        for old in sorted(there - {name})[: max(0, len(there) - keep)]:
            self._try(partial(store.remove_below, self._at(f"checkpoints/{old}")), old)

    def clear(self, name: str) -> None:
        """Removes what an attempt that died left of a checkpoint: its shares must not mix with new ones."""
        if self._sizes(f"checkpoints/{name}"):
            self._try(partial(store.remove_below, self._at(f"checkpoints/{name}")), name)

    def bring_run(self, run: Path) -> None:
        """Brings what lies beside the checkpoints, in the place of what another attempt left here."""
        sizes = self._sizes("")
        if "config.yaml" in sizes:
            own = sorted(name for name in sizes if not name.startswith("checkpoints/"))
            for name in [
                *(name for name in own if name != "config.yaml"),
                "config.yaml",
            ]:  # the sign of a run
                self._bring(name, run / name)

    def bring_latest(self, run: Path) -> None:
        """Brings the checkpoint to continue from, if there is one and it is not here."""
        folder, sizes = run / "checkpoints", self._sizes("checkpoints")
        if checkpoint.LAST not in sizes:
            return
        with tempfile.TemporaryDirectory() as beside:
            self._bring(f"checkpoints/{checkpoint.LAST}", Path(beside) / checkpoint.LAST)
            name = (Path(beside) / checkpoint.LAST).read_text().strip()
        files = {path: size for path, size in sizes.items() if path.startswith(f"{name}/")}
        here = {path: folder / path for path in files}
        if all(path.exists() and path.stat().st_size == files[each] for each, path in here.items()):
            checkpoint.point(folder, name)
            return

        def save(into: Path) -> None:
            for path in files:
                self._bring(f"checkpoints/{path}", into / path.removeprefix(f"{name}/"))

        checkpoint.fill(
            checkpoint.begin_named(folder, name), save=save, keep=len(checkpoint.steps(folder)) + 1
        )

    def _at(self, name: str) -> str:
        return below(self.url, name) if name else self.url

    def _sizes(self, folder: str) -> dict[str, int]:
        return self._try(lambda: store.sizes_below(self._at(folder)), folder or "the run")

    def _send(self, path: Path, name: str) -> None:
        self._try(lambda: store.send(path, self._at(name)), name)

    def _bring(self, name: str, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._try(lambda: store.bring(self._at(name), path), name)

    def _try(self, action: Callable[[], T], name: str) -> T:
        try:
            return patiently(action, name, seconds=_PATIENCE)
        except Failure as failure:
            where = f"run.mirror={public(self.url)}"
            raise OSError(f"{name} cannot be exchanged with {where}: {failure.reason}") from None
