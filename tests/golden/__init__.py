"""Replays of numbers that the authors' own code produced. `python -m tests.golden DIR` runs them all."""
