"""bad_samples.jsonl: the bad samples of a run, one JSON object a line; each rank writes a file of its own.

A file has one writer, so that lines never interleave; whoever reads takes all of them together. A kill may
tear the last line: readers pass over it, and the next line begins below it.
"""

import json
from collections.abc import Iterator
from pathlib import Path

MAX_LINE = 1 << 17  # bytes; ours stay below, because names are cut
MAX_NAME = 4096  # characters of a name, as many as a path may have


def log_of_rank(log: Path, rank: int) -> Path:
    """The file of a rank: `log` itself for the first one, `STEM.rankN.jsonl` beside it for the others."""
    return log.with_name(f"{log.stem}.rank{rank}{log.suffix}") if rank else log


def logs(log: Path) -> list[Path]:
    """The files of all ranks that there are, that of the first rank first."""
    others = log.parent.glob(f"{log.stem}.rank*{log.suffix}")
    return [path for path in (log, *sorted(others)) if path.is_file()]


def read_bad(log: Path) -> dict[int, str]:
    """The causes of the samples that the files of all ranks name. What is no line of ours is passed over."""
    return {sample: cause for path in logs(log) for sample, cause in _lines(path)}


def append_bad(
    log: Path, *, sample: int, key: str, shard: str, cause: str, replaced_by: int | None = None
) -> None:
    """Writes a line, below a torn one if need be. Raises ValueError, naming the file, where it cannot."""
    line = {"sample": sample, "key": key[:MAX_NAME], "shard": shard[:MAX_NAME], "cause": cause}
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab+") as file:
            end = file.seek(0, 2)
            file.seek(max(0, end - 1))
            torn = file.read(1) not in (b"", b"\n")
            file.write(b"\n" * torn + json.dumps({**line, "replaced_by": replaced_by}).encode() + b"\n")
    except OSError as error:
        raise ValueError(f"cannot write {log}, which names bad images: {error.strerror or error}") from None


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Sample and cause of each line; never holds more than one of bounded length."""
    with path.open("rb") as file:
        while line := file.readline(MAX_LINE):
            try:
                found = json.loads(line)
                sample, cause = found["sample"], found.get("cause", "unknown")
            except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
                continue
            if type(sample) is int and 0 <= sample < 1 << 63 and isinstance(cause, str):
                yield sample, cause
