"""The charts of a run."""

from raymask.report.chart import Chart, Line
from raymask.report.facts import Facts


def curves(facts: Facts) -> list[Chart]:
    """Every chart that has something to show, in the order in which one asks."""
    level = ("ln K", facts.uniform) if facts.uniform else None
    entropy = level if any("teacher_entropy" in line for line in facts.training) else None
    charts = [
        Chart("the classifier's top-1, %", _evaluated(facts, "top1"), unit=" %"),
        Chart("k-NN top-1, %", _knn(facts), unit=" %"),
        Chart("loss", _training(facts, "loss", *_parts(facts)), level=level),
        Chart(
            "teacher entropy",
            _training(facts, "teacher_entropy", "teacher_spread"),
            level=entropy,
            from_zero=True,
        ),
        Chart("feature health", _evaluated(facts, "feature_std"), from_zero=True),
        Chart("effective rank of features", _evaluated(facts, "effective_rank"), from_zero=True),
        Chart("learning rate", _training(facts, "lr"), from_zero=True),
        Chart("weight decay", _training(facts, "wd"), from_zero=True),
        Chart("teacher momentum", _training(facts, "momentum")),
        Chart("mask", _training(facts, "mask_ratio", "guidance"), from_zero=True),
        Chart("gradient norm", _training(facts, "grad_norm"), from_zero=True),
        Chart("images a second", [*_training(facts, "images_per_s"), *_views(facts)], from_zero=True),
        Chart("share of time waiting for data", _training(facts, "data_wait"), from_zero=True),
        Chart("loader: threads busy", _data(facts, "read", "decode", "cut"), from_zero=True),
        Chart("loader: batches ready", _data(facts, "queue"), from_zero=True),
        Chart("data on the device, share of time", _data(facts, "transfer", "finish"), from_zero=True),
    ]
    return [chart for chart in charts if chart.legend]


def _parts(facts: Facts) -> list[str]:
    names = {name for line in facts.training for name in line if name.startswith("loss_")}
    return sorted(names)


def _training(facts: Facts, *names: str) -> list[Line]:
    return [_line(name, facts.training, name) for name in names]


def _views(facts: Facts) -> list[Line]:
    """Masked views a second, where an image has several."""
    lines = [
        line | {"views_per_s": line["images_per_s"] * line["views"]}
        for line in facts.training
        if line.get("views", 1) > 1 and line.get("images_per_s")
    ]
    return [_line("views_per_s", lines, "views_per_s")] if lines else []


def _data(facts: Facts, *parts: str) -> list[Line]:
    return [_line(part, facts.training, f"data_{part}") for part in parts]


def _evaluated(facts: Facts, *names: str) -> list[Line]:
    return [_line(name, facts.evaluations, f"eval/{name}") for name in names]


def _knn(facts: Facts) -> list[Line]:
    names = {name for line in facts.evaluations for name in line if name.startswith("eval/knn")}
    ks = sorted(
        int(name.removeprefix("eval/knn").removesuffix("_top1")) for name in names if name.endswith("_top1")
    )
    return [_line(f"k = {k}", facts.evaluations, f"eval/knn{k}_top1") for k in ks]


def _line(shown: str, lines: list[dict], name: str) -> Line:
    found = [line for line in lines if line.get(name) is not None]  # null: it was not finite
    return Line(shown.replace("_", " "), [line["images"] for line in found], [line[name] for line in found])
