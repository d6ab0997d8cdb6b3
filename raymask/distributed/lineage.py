"""What a population did to a setting, as a schedule: the settings of a run that were changed on its way.

A history is [[step, {path: value}], ...]: from that step on, these values held. As a `steps` schedule it
reruns what the population found, from the first step, in one go.
"""

from collections.abc import Mapping
from typing import Any

History = list[list]  # of [step, {path: value}]


def extended(history: History, step: int, values: Mapping[str, float]) -> History:
    """`history` with `values` from `step` on; what it planned for later steps is forgotten."""
    past = [entry for entry in history if entry[0] < step]
    if past and past[-1][1] == dict(values):
        return past
    return [*past, [step, dict(values)]]


def as_schedules(history: History, *, steps: int) -> dict[str, Any]:
    """{path: number or `steps` schedule} that has at every step what the history says.

    >>> as_schedules([[0, {"mask.ratio": 0.3}], [5, {"mask.ratio": 0.4}]], steps=20)
    {'mask.ratio': {'kind': 'steps', 'values': [0.3, 0.4], 'at': [0.25]}}
    """
    assert history and history[0][0] == 0, "a history begins with the first step"
    found: dict[str, Any] = {}
    for path in history[0][1]:
        changes = [(step, values[path]) for step, values in history]
        kept = [
            change for place, change in enumerate(changes) if not place or changes[place - 1][1] != change[1]
        ]
        if len(kept) == 1:
            found[path] = kept[0][1]
        else:
            # The same division as Progress.fraction, so that the change falls on its very step.
            at = [step / steps for step, _ in kept[1:]]
            found[path] = {"kind": "steps", "values": [value for _, value in kept], "at": at}
    return found
