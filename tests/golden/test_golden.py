"""Every golden case replays within its tolerance."""

import pytest

from tests.golden import replay_all
from tests.golden.cases import HERE, REPLAYS, find, load

replay_all.register()


@pytest.mark.parametrize("path", list(find(HERE)), ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_the_authors_numbers_replay(path):
    case = load(path)
    deviations = REPLAYS[case.kind](case)
    assert deviations
    assert not [d for d in deviations if not d.ok]
