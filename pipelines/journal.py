"""What a pack has finished, in a hidden file of its folder, so that it can go on after a kill."""

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from pipelines.lock import lock
from pipelines.manifest import Shard

JOURNAL = ".packing.jsonl"


@dataclass(frozen=True)
class Entry:
    """A finished shard of a split.

    items: how many of the split's images it and its forerunners used up; bad: those among its own left out
    """

    split: str
    shard: Shard
    items: int
    bad: list[dict[str, Any]]


class Journal:
    """One line for the plan, one for each finished shard. To be used in a `with`.

    Raises ValueError where another process packs into the folder, or where it holds half of another pack.
    """

    def __init__(self, out: Path, plan: str) -> None:
        self.path = out / JOURNAL
        self._file = self.path.open("ab+")
        try:
            lock(self._file, busy=f"another process packs into {out}: wait for it, or choose another folder")
            self.entries = self._restore(plan)
        except ValueError:
            self._file.close()
            raise

    def _restore(self, plan: str) -> list[Entry]:
        """Reads the lines; one that a kill has torn is cut off."""
        self._file.seek(0)
        text = self._file.read()
        whole = text[: text.rfind(b"\n") + 1]
        head, *rest = [json.loads(line) for line in whole.splitlines()] or [None]
        if head == {"plan": plan}:
            self._file.truncate(len(whole))
            return [Entry(row["split"], Shard(**row["shard"]), row["items"], row["bad"]) for row in rest]
        if rest:
            raise ValueError(
                f"{self.path.parent} holds an unfinished pack of other data or with other settings: "
                "finish that one, delete the folder, or choose another"
            )
        self._file.truncate(0)
        self._append({"plan": plan})
        return []

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._file.close()

    @property
    def bad(self) -> list[dict[str, Any]]:
        """The lines of all bad samples that finished shards have left out."""
        return [line for entry in self.entries for line in entry.bad]

    def of(self, split: str) -> list[Entry]:
        """The entries of one split."""
        return [entry for entry in self.entries if entry.split == split]

    def add(self, entry: Entry) -> None:
        """Notes a finished shard."""
        self._append(asdict(entry))
        self.entries.append(entry)

    def delete(self) -> None:
        """Removes the journal: the pack is complete, or there is nothing to go on from."""
        self.path.unlink(missing_ok=True)

    def _append(self, line: dict[str, Any]) -> None:
        self._file.write(json.dumps(line).encode() + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())
