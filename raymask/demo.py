"""The main job, start to end, on real images: pack, train, evaluate, export, report.

Without DATA the images are 10,000 of Fashion-MNIST, which come with raymask.
"""

import shutil
import time
from pathlib import Path

import numpy as np
from pydantic import PositiveFloat

from pipelines.pack import Packing, pack
from pipelines.settings import Settings
from pipelines.source import open_splits
from raymask import metrics
from raymask.config import Config, load
from raymask.evaluate import evaluate_run, open_evaluation
from raymask.export import export
from raymask.report import write_report
from raymask.train import train

HERE = Path(__file__).parent / "data"
FASHION = HERE / "fashion-mnist" / "t10k-images-idx3-ubyte.gz"
CLASSES = (
    "t-shirt",
    "trouser",
    "pullover",
    "dress",
    "coat",
    "sandal",
    "shirt",
    "sneaker",
    "bag",
    "ankle boot",
)
HOLDOUT = 0.2
FROZEN = 0.04  # share of the training in which the prototypes rest, as in the embedded recipe
SMALL = 48  # pixels: images below it are trained like the demo's own
PACK_SIDE = 256  # pixels that photos are packed with at most: the crops are far smaller


class Demo(Settings):
    """What to run the demo on.

    data: a folder of images (classes in sub-folders, or flat), a zip, tars; null is Fashion-MNIST
    out: folder for shards and runs; shards that are there are used again, runs get a name of their own
    minutes: how long to train on data of one's own
    """

    data: str | None = None
    out: str = "demo"
    minutes: PositiveFloat = 3


def demo(settings: Demo, overrides: tuple[str, ...] = ()) -> Path:
    """Runs the main job, prints what came out, returns the run; `overrides` are of the training."""
    begun = time.monotonic()
    shards = _pack(settings)
    config = _config(settings, shards, overrides)
    run = train(config)
    _say("evaluating")
    results = _evaluate(run, config)
    exported = export(run)
    report = write_report(run)
    _conclude(results, exported, report, seconds=time.monotonic() - begun)
    return run


def _pack(settings: Demo) -> Path:
    """The shards, with a held-out part."""
    source = settings.data or str(FASHION)
    shards = Path(settings.out) / ("shards" if settings.data is None else f"shards-{Path(source).stem}")
    _say(f"packing {settings.data or '10,000 images of Fashion-MNIST (Zalando SE, MIT licence)'}")
    already_split = list(open_splits(source)) != [""]
    packing = Packing(
        holdout=0 if already_split else HOLDOUT,
        classes=CLASSES if settings.data is None else None,
        max_side=None if settings.data is None else PACK_SIDE,
    )
    print(pack(source, shards, packing))
    return shards


def _config(settings: Demo, shards: Path, overrides: tuple[str, ...]) -> Config:
    """The recipe that fits the images."""
    root, name = Path(settings.out), _free_name(Path(settings.out))
    places = [f"run.root={root}", f"run.name={name}", f"data.train={shards}"]
    if settings.data is None:
        return load(str(HERE / "demo.yaml"), [*places, *overrides])
    train_images = len(open_splits(shards)["train"])
    recipe = HERE / ("demo.yaml" if _median_side(shards) < SMALL else "demo-photos.yaml")
    changes = [*places, f"train.global_batch={min(64, train_images)}", *overrides]
    pace = _images_per_second(str(recipe), changes, root, train_images)
    epochs = max(20 * min(64, train_images), 60 * settings.minutes * pace) / train_images
    _say(f"{pace:.0f} images/s here: {epochs:.2g} epochs of {train_images:,} images")
    length = [f"train.epochs={epochs}", f"optim.freeze_last_layer={FROZEN * epochs}"]
    return load(str(recipe), [*places, *length, *changes[len(places) :]])


def _free_name(root: Path) -> str:
    """run, run-2, ...: the first that is not taken, because runs are never overwritten."""
    numbers = range(1, 10_000)
    names = ("run" if number == 1 else f"run-{number}" for number in numbers)
    return next(name for name in names if not (root / name).exists())


def _median_side(shards: Path) -> float:
    """Median of the shorter sides of a few images, in pixels."""
    from pipelines.inspect import look

    source = open_splits(shards)["train"]
    chosen = np.arange(min(32, len(source))) * len(source) // min(32, len(source))
    return float(np.median([min(look(source, int(sample))[1].shape[:2]) for sample in chosen]))


def _images_per_second(recipe: str, changes: list[str], root: Path, images: int) -> float:
    """The pace of training here, from a few steps that are thrown away."""
    batch = min(64, images)
    probe = [
        f"train.epochs={8 * batch / images}",
        "train.log_steps=4",
        "evaluate.knn=[]",
        "evaluate.linear=false",
    ]
    config = load(recipe, [*changes, *probe, "run.name=.pace"])
    shutil.rmtree(root / ".pace", ignore_errors=True)
    try:
        lines = list(metrics.read(train(config) / "metrics.jsonl"))
        return [line["images_per_s"] for line in lines if "images_per_s" in line][-1]
    finally:
        shutil.rmtree(root / ".pace", ignore_errors=True)


def _evaluate(run: Path, config: Config) -> dict[str, float]:
    """Accuracies of the backbone trained and untrained, and of raw pixels; none without labels."""
    missing = open_evaluation(config).missing
    if missing is not None:
        _say(missing)
        return {}
    return evaluate_run(run, baselines=True)


def _conclude(results: dict[str, float], exported: Path, report: Path, *, seconds: float) -> None:
    print(f"\nthe main job took {seconds / 60:.1f} minutes")
    names = [name for name in results if name.startswith("eval/knn") and name.endswith("_top1")]
    if names:
        name = "eval/knn20_top1" if "eval/knn20_top1" in results else names[0]
        metric, k = name.removeprefix("eval/"), name.removeprefix("eval/knn").removesuffix("_top1")
        trained, untrained, pixels = (results[f"{what}/{metric}"] for what in ("eval", "untrained", "pixels"))
        print(f"k-NN top-1 (k = {k}), backbone trained:    {trained:5.1f} %")
        print(f"k-NN top-1 (k = {k}), same one untrained:  {untrained:5.1f} %")
        print(f"k-NN top-1 (k = {k}), raw pixels:          {pixels:5.1f} %")
        print(_comment(trained, untrained, pixels))
    print(f"backbone for plain timm: {exported}")
    print(f"report: {report}")


def _comment(trained: float, untrained: float, pixels: float) -> str:
    """The result in words, whichever way it came out."""
    if trained <= untrained:
        return "training has not helped yet: minutes are not enough for these images, train longer"
    gain = f"training gained {trained - untrained:.1f} points"
    return (
        f"{gain}; raw pixels still win, as they can on small aligned pictures" if pixels > trained else gain
    )


def _say(text: str) -> None:
    print(f"== {text}", flush=True)
