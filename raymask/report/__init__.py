"""report.html: what a run was, whether it learnt, what its networks look at and what it cost; or a search."""

from pathlib import Path

from raymask.report.page import write_run_report
from raymask.report.search_page import write_search_report
from raymask.report.searched import FILE

__all__ = ["write_report"]


def write_report(folder: Path | str, *, out: Path | str | None = None) -> Path:
    """Writes report.html of a run or of a search into its directory, or to `out`; returns its path.

    Raises ValueError where a run has no checkpoint yet, and where the folder is neither.
    """
    searched = (Path(folder) / FILE).exists()
    return (write_search_report if searched else write_run_report)(folder, out=out)
