"""Evaluating what a run left, long after it: the backbone of a run, a checkpoint or an export."""

from pathlib import Path
from typing import Literal

from pipelines.settings import Settings
from raymask.config import change
from raymask.device import autocast_dtype, pick_device
from raymask.evaluate import evaluate, open_evaluation
from raymask.run import write_json
from raymask.trained import open_trained


class Exporting(Settings):
    """out: folder of the export; null is RUN/export/NETWORK. network: null is the evaluated one."""

    out: str | None = None
    network: Literal["teacher", "student"] | None = None


def judge(path: Path, changes: list[str] | tuple[str, ...] = ()) -> dict[str, float]:
    """`eval/NAME` of the backbone at `path`, also written to the run's eval folder where there is one.

    changes: to the run's config, such as evaluate.linear=true or data.val=PATH. Raises ValueError.
    """
    config = change(open_trained(path).config, changes)
    trained = open_trained(path, network=config.evaluate.network)
    device = pick_device()
    evaluation = open_evaluation(config)
    dtype = autocast_dtype(device, config.train.precision)
    results = evaluate(trained.backbone.to(device), evaluation, final=True, dtype=dtype)
    if evaluation.missing is not None:
        raise ValueError(evaluation.missing)
    if trained.run is not None:
        folder = trained.run / "eval"
        folder.mkdir(exist_ok=True)
        asked = config.evaluate.model_dump(mode="json")
        write_json(
            folder / f"{config.evaluate.network}_{trained.step:08d}.json",
            {"step": trained.step, "evaluate": asked, **results},
        )
    return results
