"""Draws docs/schedules.svg: `python docs/draw_schedules.py`."""

from pathlib import Path

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt

from raymask.epoch_cosine import EpochCosine
from raymask.iteration_cosine import IterationCosine
from raymask.progress import Progress
from raymask.schedules import Constant, Cosine, Linear, Piecewise, Ramp, Steps, WarmupCosine

SHOWN = {
    "constant 0.3": Constant(value=0.3),
    "linear 0.1 to 0.5": Linear(start=0.1, end=0.5),
    "cosine 0.04 to 0.4": Cosine(start=0.04, end=0.4),
    "steps 0.1, 0.3, 0.5 at 0.3, 0.7": Steps(values=(0.1, 0.3, 0.5), at=(0.3, 0.7)),
    "piecewise (0, 0.1) (0.4, 0.5) (1, 0.2)": Piecewise(points=((0.0, 0.1), (0.4, 0.5), (1.0, 0.2))),
    "warmup_cosine, peak 0.5, end 0.01, warmup 0.1": WarmupCosine(peak=0.5, end=0.01, warmup=0.1),
    "iteration_cosine, peak 0.5, warmup 0.1": IterationCosine(peak=0.5, warmup=0.1),
    "epoch_cosine, peak 0.5, warmup 0.1, 20 epochs": EpochCosine(peak=0.5, warmup=0.1),
    "ramp 0.04 to 0.07, warmup 0.3, 20 epochs": Ramp(start=0.04, end=0.07, warmup=0.3),
}


def draw(path: Path) -> None:
    """One small plot a schedule, over the share of the training that is done."""
    plt.rcParams["svg.hashsalt"] = "raymask"  # the same bytes every time
    moments = [Progress(step, steps=400, steps_per_epoch=20) for step in range(400)]
    figure, axes = plt.subplots(3, 3, figsize=(10, 7.5), layout="constrained")
    for plot, (name, schedule) in zip(axes.flat, SHOWN.items()):
        plot.plot([p.fraction for p in moments], [schedule(p) for p in moments], linewidth=1.5)
        plot.set_title(name, fontsize=8)
        plot.set_ylim(bottom=0)
    for plot in axes.flat[len(SHOWN) :]:
        plot.axis("off")
    figure.savefig(path, metadata={"Date": None})


if __name__ == "__main__":
    draw(Path(__file__).with_name("schedules.svg"))
