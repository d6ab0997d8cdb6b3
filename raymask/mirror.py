"""A copy of a run directory behind a URL, for machines that share no disk or may lose theirs.

Files go there with every checkpoint: those of a checkpoint first, then its `state.json`, then what names it
in `checkpoints/last`. So whatever dies whenever, a checkpoint that has a state.json is whole, and so is the
one that `last` names. A run continues from that one, unless the disk of its first process holds a later one
of the same run, which goes there then; what a machine lacks is brought to it first.

Nobody can lock a bucket. Who goes on with a run signs it there, and who finds another's signature before it
sends a checkpoint ends: a machine that was taken for dead, say.
"""

import json
import socket
import time
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import yaml

from pipelines.badlog import log_of_rank
from pipelines.remote.urls import below, public
from raymask import checkpoint, state
from raymask.bucket import Bucket
from raymask.run import Run, refuse_existing
from raymask.sharded import written_by

_RUN = ("config.yaml", "env.json", "metrics.jsonl", "train.log", "eval/*.json", "trackers*")
_TIME = "%Y-%m-%d %H:%M:%S"
_BAD = "bad_samples.jsonl"
_STATE = "state.json"  # of a checkpoint: the last of its files to come and the first to go
_OWNER = "owner.json"  # who writes there


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


def agree(run: Run) -> None:
    """Makes this machine's run and its mirror, if it has one, the same: each gets what it lacks.

    Raises ValueError, before anything is written, where they are two runs of one name.
    """
    mirror = mirror_of(run)
    if mirror is not None:
        mirror.catch_up(run.folder())
        mirror.bring_run(run.folder())


@dataclass(frozen=True)
class Mirror:
    """The run directory behind `url`. Its methods raise OSError for what does not go through.

    owner: what this process signed with, if it did
    """

    url: str
    owner: str = ""

    @property
    def _bucket(self) -> Bucket:
        return Bucket(self.url)

    def claimed(self) -> "Mirror":
        """The mirror as this process's own: whoever wrote there before is refused from now on."""
        owner = {"id": uuid.uuid4().hex, "host": socket.gethostname(), "since": time.strftime(_TIME)}
        claim = json.dumps(owner)
        self._bucket.write(claim, _OWNER)
        return Mirror(self.url, claim)

    def refuse_displaced(self) -> None:
        """Raises ValueError if another process has signed since this one did."""
        found = self._bucket.text(_OWNER) if self.owner else ""
        if found != self.owner:
            other = json.loads(found)
            raise ValueError(
                f"{self._name()}: {other['host']} goes on with this run since {other['since']}, so it ends "
                "here, and sends nothing more; 'raymask resume' would take it back"
            )

    def _name(self) -> str:
        return f"run.mirror={public(self.url.rpartition('/')[0])}"

    def send_run(self, run: Path) -> None:
        """Copies what the first rank wrote beside its checkpoints."""
        for path in sorted(path for pattern in _RUN for path in run.glob(pattern) if path.is_file()):
            self._bucket.send(path, str(path.relative_to(run)))

    def send_bad(self, run: Path, ranks: Iterable[int]) -> None:
        """Copies the lists of bad images of some ranks, each of which has its own."""
        for path in (log_of_rank(run / _BAD, rank) for rank in ranks):
            if path.is_file():
                self._bucket.send(path, path.name)

    def send_share(self, folder: Path, name: str, *, rank: int) -> None:
        """Copies one rank's files in `folder` into the checkpoint `name`, which is none before `complete`."""
        self._send_files([path for path in _files(folder) if written_by(path, rank)], folder, name)

    def complete(self, folder: Path, name: str, *, keep: int) -> None:
        """Makes a checkpoint, of which all else was sent, the one to continue from; keeps the newest."""
        self.refuse_displaced()
        self._bucket.send(folder / _STATE, f"checkpoints/{name}/{_STATE}")
        self._bucket.write(name + "\n", f"checkpoints/{checkpoint.LAST}")
        there = _complete_in(self._bucket.sizes("checkpoints"))
        for old in sorted(there - {name})[: max(0, len(there) - keep)]:
            self.remove(old)

    def remove(self, name: str) -> None:
        """Removes a checkpoint, or what an attempt that died left of one: shares must not mix."""
        sizes = self._bucket.sizes(f"checkpoints/{name}")
        if _STATE in sizes:
            self._bucket.remove(f"checkpoints/{name}/{_STATE}")
        if sizes.keys() - {_STATE}:
            self._bucket.remove(f"checkpoints/{name}")

    def clean(self) -> None:
        """Removes what attempts that died left: half of checkpoints, and those that `last` never named."""
        sizes = self._bucket.sizes("checkpoints")
        last, complete = self._last(sizes), _complete_in(sizes)
        for name in sorted({path.split("/")[0] for path in sizes} - {checkpoint.LAST}):
            if name not in complete or name > last:
                self.remove(name)

    def holds_a_run(self) -> bool:
        """Whether a run is there."""
        return "config.yaml" in self._bucket.sizes("")

    def discard_if_untrained(self) -> None:
        """Removes a run that was refused before it learned anything, unless another has signed it since."""
        names = self._bucket.sizes("")
        taken = _OWNER in names and self._bucket.text(_OWNER) != self.owner
        learned = any(name.startswith(("metrics.jsonl", "checkpoints/")) for name in names)
        if names and not taken and not learned:
            self._bucket.remove("")

    def catch_up(self, run: Path) -> None:
        """Sends what this disk holds beyond the mirror: one that was set later, or could not be reached."""
        newest = checkpoint.latest(run / "checkpoints")
        if not (run / "config.yaml").exists():
            return
        sizes = self._bucket.sizes("")
        self._refuse_another(run, sizes)
        known = "config.yaml" in sizes
        if known and (newest is None or newest.name <= self._last(self._bucket.sizes("checkpoints"))):
            return
        self.send_run(run)
        if newest is not None:
            self.remove(newest.name)
            self._send_files(_files(newest), newest, newest.name)
            self.complete(newest, newest.name, keep=len(sizes) + 1)

    def bring_run(self, run: Path) -> None:
        """Brings what lies beside the checkpoints, in the place of what another attempt left here.

        Raises ValueError where that is another run.
        """
        sizes = self._bucket.sizes("")
        self._refuse_another(run, sizes)
        if "config.yaml" in sizes:
            own = [name for name in sorted(sizes) if not name.startswith(("checkpoints/", _OWNER))]
            for name in sorted(own, key=lambda name: name == "config.yaml"):  # the sign of a run goes last
                self._bucket.bring(name, run / name)

    def bring_latest(self, run: Path, *, keep: int) -> Path | None:
        """The checkpoint to continue from, brought if it is not here; None where the mirror has none.

        Here, too, only the `keep` newest stay.
        """
        folder = run / "checkpoints"
        name, files = self._newest()
        if not name:
            return None
        if self._is_here(folder, name, files):
            checkpoint.point(folder, name)
            return folder / name

        def save(into: Path) -> None:
            for path in files:
                self._bucket.bring(f"checkpoints/{path}", into / path.removeprefix(f"{name}/"))

        return checkpoint.fill(checkpoint.begin_named(folder, name), save=save, keep=keep)

    def bring_end(self, run: Path, *, keep: int) -> None:
        """Brings a run that has ended to a disk that lacks its last checkpoint."""
        name, files = self._newest()
        if name and not self._is_here(run / "checkpoints", name, files):
            self.bring_run(run)
            self.bring_latest(run, keep=keep)

    def _newest(self) -> tuple[str, dict[str, int]]:
        """The checkpoint that `last` names, and the sizes of its files; "" where there is none."""
        sizes = self._bucket.sizes("checkpoints")
        name = self._last(sizes)
        return name, {path: size for path, size in sizes.items() if path.startswith(f"{name}/")}

    def _is_here(self, folder: Path, name: str, files: dict[str, int]) -> bool:
        """Whether a checkpoint is on this disk as it is in the mirror, and no other one of that name."""
        if not all((folder / at).exists() and (folder / at).stat().st_size == files[at] for at in files):
            return False
        return self._bucket.text(f"checkpoints/{name}/{_STATE}") == (folder / name / _STATE).read_text()

    def _refuse_another(self, run: Path, sizes: dict[str, int]) -> None:
        """Raises ValueError where the mirror is that of another run than the one on this disk."""
        if "config.yaml" not in sizes or not (run / "config.yaml").exists():
            return
        there, here = (
            yaml.safe_load(text)
            for text in (self._bucket.text("config.yaml"), (run / "config.yaml").read_text())
        )
        try:
            state.refuse_another_config(there, here, where=run)
        except ValueError as error:
            raise ValueError(
                f"{self._name()} holds another run named {run.name} than "
                f"{run.parent} ({error}): rename one of the two, or leave the mirror out with run.mirror=null"
            ) from None

    def _last(self, sizes: dict[str, int]) -> str:
        """The checkpoint that `last` names, of the files in checkpoints/; "" where there is none."""
        return self._bucket.text(f"checkpoints/{checkpoint.LAST}").strip() if checkpoint.LAST in sizes else ""

    def _send_files(self, paths: list[Path], folder: Path, name: str) -> None:
        for path in paths:
            if path.name != _STATE:
                self._bucket.send(path, f"checkpoints/{name}/{path.relative_to(folder)}")


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _complete_in(sizes: dict[str, int]) -> set[str]:
    """The checkpoints that are whole, of the files in checkpoints/."""
    return {path.split("/")[0] for path in sizes if path.endswith(f"/{_STATE}")}
