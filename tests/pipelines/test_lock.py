"""A lock keeps others out for as long as its file is open."""

from pathlib import Path

import pytest

from pipelines.lock import lock


def test_a_second_holder_is_told_so_until_the_first_closes_its_file(tmp_path: Path):
    path = tmp_path / "lock"
    with path.open("ab") as second:
        with path.open("ab") as first:
            lock(first, busy="somebody works here")
            with pytest.raises(ValueError, match="somebody works here"):
                lock(second, busy="somebody works here")
        lock(second, busy="somebody works here")
