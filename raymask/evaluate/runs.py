"""`raymask evaluate`: a run, checkpoint or export in; numbers out, and into the run's `eval/` folder."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from raymask.evaluate.protocol import evaluate, evaluate_pixels, open_evaluation
from raymask.evaluate.splits import why_not_classified

if TYPE_CHECKING:
    from raymask.config import Config
    from raymask.trained import Trained


def evaluate_run(
    path: Path | str,
    overrides: Sequence[str] = (),
    *,
    baselines: bool = False,
    say: Callable[[str], None] = print,
) -> dict[str, float]:
    """`eval/NAME` of what was trained, with `evaluate.linear` and `evaluate.finetune` where these are set.

    overrides: `evaluate.KEY=value` and `data.KEY=value` over the run's config
    say: gets a sentence where something that was asked for, or is there, cannot be measured
    baselines: also measure the same backbone untrained (`untrained/NAME`) and raw pixels (`pixels/NAME`)
    Writes RUN/eval/NETWORK_step_N.json. Raises ValueError, with what to do, where accuracies cannot be had.
    """
    from raymask.config import change
    from raymask.device import autocast_dtype, pick_device
    from raymask.evaluate.finetune import finetune
    from raymask.trained import open_trained

    _check_keys(overrides)
    config = change(open_trained(path).config, list(overrides))
    trained = open_trained(path, network=config.evaluate.network)
    evaluation = open_evaluation(config)
    if evaluation.missing is not None or evaluation.queries is None:
        raise ValueError(evaluation.missing)
    device = pick_device()
    dtype = autocast_dtype(device, config.train.precision)
    own = trained.classifier
    other = None if own is None else why_not_classified(own.classes, trained.classes, evaluation.bank.source)
    for remark in (evaluation.remark, other):
        if remark is not None:
            say(remark)
    classifier = None if own is None or other is not None else own.to(device)
    results = evaluate(
        trained.backbone.to(device), evaluation, final=True, dtype=dtype, classifier=classifier
    )
    if config.evaluate.finetune is not None:
        results |= finetune(
            trained.backbone, evaluation, config.evaluate.finetune, data=config.data, dtype=dtype
        )
    if baselines:
        untrained = trained.config.backbone.build(seed=config.run.seed).to(device)
        found = evaluate(untrained, evaluation, final=True, dtype=dtype)
        results |= {name.replace("eval/", "untrained/"): value for name, value in found.items()}
        found = evaluate_pixels(evaluation)
        results |= {name.replace("eval/", "pixels/"): value for name, value in found.items()}
    if trained.run is not None:
        asked = len(evaluation.bank.samples), len(evaluation.queries.samples)
        _write(results, trained.run / "eval", config, trained, asked=asked)
    return results


def _write(
    results: dict[str, float], folder: Path, config: "Config", trained: "Trained", *, asked: tuple[int, int]
) -> None:
    """What was measured, with what it was measured on, beside the run. asked: images of bank and queries"""
    from raymask.run import write_json

    folder.mkdir(exist_ok=True)
    about = {
        "step": trained.step,
        "network": config.evaluate.network,
        "tensors": trained.tensors,
        "train": config.data.train,
        "val": config.data.val,
        "bank_images_asked": asked[0],
        "query_images_asked": asked[1],
        "evaluate": config.evaluate.model_dump(mode="json"),
        "results": results,
    }
    write_json(folder / f"{config.evaluate.network}_step_{trained.step:08d}.json", about)


def _check_keys(overrides: Sequence[str]) -> None:
    """Raises ValueError for keys beside an evaluation's: what was trained cannot change any more."""
    keys = [item.partition("=")[0].strip() for item in overrides]
    foreign = [key for key in keys if key.partition(".")[0] not in ("evaluate", "data")]
    if foreign:
        raise ValueError(
            f"{', '.join(foreign)} cannot be set for an evaluation: "
            "it takes evaluate.KEY=value and data.KEY=value, and all else as it was trained"
        )
