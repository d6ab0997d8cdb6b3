"""What docs/scaling.md plans with is what ranks really send."""

import pytest

from tests.benchmarks.exchange import FORMULAS, Weights, counted


@pytest.mark.slow
def test_ranks_send_what_the_formula_says():
    found = counted()
    sent = {name: sum(entry["sent"].values()) for name, entry in found.items()}
    expected = {name: FORMULAS[name](Weights(**entry["weights"]), members=2) for name, entry in found.items()}
    assert sent["ddp"] == expected["ddp"]
    assert expected["fsdp2"] <= sent["fsdp2"] <= 1.05 * expected["fsdp2"]
