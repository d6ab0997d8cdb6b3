"""`python -m tests.golden DIR`: replay every case below DIR, a line each; exit 1 on any that fails."""

import sys
from pathlib import Path

from tests.golden import replay_all
from tests.golden.cases import REPLAYS, find, load


def main(folders: list[str]) -> int:
    """Prints a line a case with its largest deviation; returns the number of failures."""
    if not folders:
        print("usage: python -m tests.golden DIR [DIR ...]")
        return 2
    replay_all.register()
    failures = cases = 0
    for path in (p for folder in folders for p in find(Path(folder))):
        cases += 1
        case = load(path)
        if case.kind not in REPLAYS:
            failures += 1
            print(f"FAIL  {path.name:40s} unknown kind {case.kind!r}; known: {', '.join(sorted(REPLAYS))}")
            continue
        try:
            deviations = REPLAYS[case.kind](case)
            assert deviations, f"the replay of {case.kind} compared nothing"
        except Exception as error:  # whatever it is, the other cases still have something to say
            failures += 1
            print(f"FAIL  {case.kind:28s} {path.name:40s} {type(error).__name__}: {_one_line(error)}")
            continue
        # The entry nearest to (or furthest beyond) its tolerance stands for the case; NaN is the worst.
        worst = max(deviations, key=lambda d: (not d.ok, d.value / d.tolerance if d.tolerance else d.value))
        ok = all(d.ok for d in deviations)
        failures += not ok
        print(
            f"{'ok  ' if ok else 'FAIL'}  {case.kind:28s} {path.name:40s} {len(deviations):4d} compared, "
            f"worst {worst.what}: {worst.value:.3g} (tolerance {worst.tolerance:.3g})"
        )
    if not cases:
        print(f"no golden case below {', '.join(folders)}")
        return 2
    print(f"{cases - failures} of {cases} cases replay")
    return 1 if failures else 0


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
