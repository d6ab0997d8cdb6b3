"""One host of a run: a process with a cache of its own that writes down what its rank gets, step by step.

python -m tests.pipelines.remote.host URL CACHE OUT RANK WORLD START STEPS HOLD

From step HOLD on it takes its time, so that it can be killed in the middle of its work.
"""

import json
import sys
import time
from pathlib import Path

from pipelines.loader import Loader
from pipelines.source import open_source
from tests.pipelines.remote.walking import cache, data, told

SLOWLY = 20.0  # seconds for a step


def main() -> None:
    url, folder, out, *numbers = sys.argv[1:]
    rank, world, start, steps, hold = map(int, numbers)
    source = open_source(url, cache=cache(Path(folder)))
    with (
        Loader(data(), source, batch=8, seed=5, rank=rank, world=world, start=start, steps=steps) as loader,
        Path(out).open("w") as file,
    ):
        for batch in loader:
            file.write(json.dumps(list(told(batch).items())) + "\n")
            file.flush()
            time.sleep(SLOWLY if batch.step >= hold else 0)


if __name__ == "__main__":
    main()
