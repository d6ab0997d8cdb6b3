"""report.html: what a run was, whether it learnt, what its networks look at, and what it cost."""

from raymask.report.page import write_report

__all__ = ["write_report"]
