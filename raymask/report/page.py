"""The page: facts, charts and pictures through the template, into one file without any outside reference."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from raymask import __version__
from raymask.report.chart import number_text
from raymask.report.curves import curves
from raymask.report.facts import Facts, read_facts
from raymask.report.gallery import Gallery, attention, nearest, views
from raymask.report.pages import templates, write_page
from raymask.report.verdict import judge

MEASURED = {"eval": "trained", "untrained": "untrained", "pixels": "raw pixels"}


@dataclass(frozen=True)
class Section:
    """Pictures under a title, or the sentence why there are none."""

    name: str
    title: str
    text: str
    gallery: Gallery | None
    missing: str = ""


SECTIONS: dict[str, tuple[str, str, Callable[[Facts], Gallery]]] = {
    "views": (
        "What the student sees",
        "Crops of training images; grey patches are hidden from it.",
        views,
    ),
    "attention": (
        "What [CLS] looks at",
        "Last block, held-out images: mean over heads before and after training, then each head. "
        "Every map is stretched from its least to its most.",
        attention,
    ),
    "neighbours": (
        "Nearest neighbours",
        "Held-out images and the training images whose features are nearest (cosine similarity); "
        "the edge says whether the class is the same.",
        nearest,
    ),
}


def write_run_report(run: Path | str, *, out: Path | str | None = None) -> Path:
    """Writes RUN/report.html; returns its path. Raises ValueError where the run has no checkpoint yet."""
    facts = read_facts(run)
    file = Path(out) if out is not None else facts.run / "report.html"
    return write_page(render(facts), file)


def render(facts: Facts) -> str:
    """The page as HTML."""
    template = templates().get_template("report.html")
    return template.render(
        name=facts.config.run.name or facts.run.name,
        verdict=judge(facts.training, facts.evaluations, uniform=facts.uniform),
        about=_about(facts),
        tiles=_tiles(facts),
        table=_table(facts),
        charts=curves(facts),
        sections=_sections(facts),
        cost=_cost(facts),
        config=_config(facts),
        environment=facts.environment,
        bad=facts.bad,
        version=__version__,
    )


def _about(facts: Facts) -> str:
    config = facts.config
    backbone, mask = config.backbone, config.mask
    masks = (
        "no masks"
        if mask.views == "none"
        else f"{mask.strategy.kind} masks ({mask.kind}, {mask.views.replace('_', ' ')})"
    )
    size = "x".join(str(side) for side in facts.trained.backbone.native)
    return (
        f"{config.method.kind}, {masks}; {backbone.name} of {facts.trained.backbone.depth} blocks, width "
        f"{facts.trained.backbone.dim}, {size} patches; step {facts.trained.step:,}; data {config.data.train}"
    )


def _tiles(facts: Facts) -> list[tuple[str, str]]:
    """The numbers to see first."""
    results = facts.results
    tiles = []
    if "top1" in results.get("eval", {}):
        tiles.append(("top-1 of its classifier", f"{results['eval']['top1']:.1f} %"))
    best = _best_k(results.get("eval", {}))
    for measured, name in MEASURED.items():
        value = results.get(measured, {}).get(f"knn{best}_top1")
        if value is not None:
            tiles.append((f"k-NN top-1, {name}", f"{value:.1f} %"))
    if "linear_top1" in results.get("eval", {}):
        tiles.append(("linear top-1", f"{results['eval']['linear_top1']:.1f} %"))
    images = facts.training[-1]["images"] if facts.training else 0
    return [
        *tiles,
        ("images seen", f"{images:,}"),
        ("images a second", _pace(facts)),
        ("waiting for data", f"{100 * facts.wait:.1f} %"),
    ]


def _best_k(results: dict[str, float]) -> int | None:
    """k = 20 where it was measured (usually the best), or the k with the highest top-1."""
    ks = {
        int(n.removeprefix("knn").removesuffix("_top1")): v
        for n, v in results.items()
        if n.endswith("_top1") and n[:3] == "knn"
    }
    return 20 if 20 in ks else max(ks, key=lambda k: ks[k], default=None)


def _table(facts: Facts) -> tuple[list[str], list[tuple[str, list[str]]]]:
    """Column titles and rows of what was measured."""
    results = {MEASURED.get(measured, measured): values for measured, values in facts.results.items()}
    names = list(dict.fromkeys(name for values in results.values() for name in values))
    first = ("top", "knn", "linear")
    order = sorted(names, key=lambda name: (*(not name.startswith(what) for what in first), len(name), name))
    percent = ["top" in name for name in order]
    rows = [
        (
            measured,
            [f"{values[n]:.2f}{' %' if p else ''}" if n in values else "" for n, p in zip(order, percent)],
        )
        for measured, values in results.items()
    ]
    return [name.replace("knn", "k-NN ").replace("_", " ") for name in order], rows


def _sections(facts: Facts) -> list[Section]:
    return [_section(facts, name, *rest) for name, rest in SECTIONS.items()]


def _section(facts: Facts, name: str, title: str, text: str, draw: Callable[[Facts], Gallery]) -> Section:
    """The section, or the sentence why it has no pictures: the data may be gone by now."""
    try:
        return Section(name, title, text, draw(facts))
    except (ValueError, OSError) as error:
        return Section(name, title, text, None, missing=f"No pictures: {error}")


def _cost(facts: Facts) -> list[tuple[str, str]]:
    environment = facts.environment
    size = sum(file.stat().st_size for file in (facts.run / "checkpoints").rglob("*") if file.is_file())
    weights = sum(parameter.numel() for parameter in facts.trained.backbone.parameters())
    return [
        ("training time", str(timedelta(seconds=round(facts.seconds)))),
        ("device", f"{environment.get('world', 1)} x {environment.get('device', 'unknown')}"),
        ("images a second (median)", _pace(facts)),
        ("waiting for data", f"{100 * facts.wait:.1f} % of the time"),
        ("backbone", f"{number_text(float(weights))} parameters"),
        ("checkpoints on disk", f"{size / 1e6:,.1f} MB"),
    ]


def _pace(facts: Facts) -> str:
    """Images a second, and the views a second that these come to where an image has several."""
    images = number_text(facts.pace)
    if facts.views <= 1:
        return images
    return f"{images} ({number_text(facts.pace * facts.views)} masked views)"


def _config(facts: Facts) -> str:
    return (facts.run / "config.yaml").read_text()
