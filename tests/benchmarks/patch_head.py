"""What it saves that iBOT's patch head runs on hidden patches only, the loss being the same.

    python -m tests.benchmarks.patch_head [--batch 2] [--repeats 5] [--precision float32]

Three ways to take the whole step of a preset (forward, backward, optimiser, moving average) on one thread:
the student's head on hidden patches only, as here; on all of them, the visible ones counting nothing in the
loss; and the teacher, too, comparing all patches with all prototypes, as in the released code. They take
their steps in turn, on the same masks. Time is the process's CPU time, which other work disturbs less than
the clock; medians over the steps, savings and their quartiles step by step. That all three give the same loss
is checked first, in float32.
"""

import argparse
import statistics
import time

import torch
from torch import Tensor
from torch.optim import Optimizer

from pipelines.batch import Batch
from raymask.config import Config, load
from raymask.device import autocast_dtype
from raymask.methods import build_method
from raymask.methods.dino import DinoMethod, Taught
from raymask.methods.patch import Hidden
from raymask.progress import Progress
from raymask.step import train_step
from raymask.streams import Rng

NOW = Progress(step=60, steps=100, steps_per_epoch=1)


def everywhere(hidden: Hidden, patches: int) -> Hidden:
    """All patches, of which only the hidden ones count."""
    weights = hidden.weights.new_zeros(patches).index_copy_(0, hidden.places, hidden.weights)
    return Hidden(torch.arange(patches), weights)


class StudentEverywhere(DinoMethod):
    """The student's head on all patches of the global crops."""

    def _bottleneck(self, crops: Tensor, patches: Tensor, hidden: Hidden | None) -> Tensor:
        assert hidden is not None
        return super()._bottleneck(crops, patches, everywhere(hidden, patches.shape[:3].numel()))

    def _patch_loss(self, rows: Tensor, taught: Taught, hidden: Hidden, progress: Progress) -> Tensor:
        assert self.patch is not None and self.settings.patch is not None
        whole = everywhere(hidden, len(rows))
        targets = self._targets(taught, hidden, whole, progress)
        weight = self.student.head.patch_weight()
        temperature = self.settings.student_temperature(progress)
        loss = self.patch.loss(rows, weight, targets, whole, temperature=temperature)
        return self.settings.patch.weight * loss

    def _targets(self, taught: Taught, hidden: Hidden, whole: Hidden, progress: Progress) -> Tensor:
        assert self.patch is not None
        found = self.patch.targets(self.teacher.head, taught.patches, hidden, progress)
        return found.new_zeros(len(whole.places), found.shape[1]).index_copy_(0, hidden.places, found)


class BothEverywhere(StudentEverywhere):
    """The teacher's targets of all patches as well."""

    def _targets(self, taught: Taught, hidden: Hidden, whole: Hidden, progress: Progress) -> Tensor:
        assert self.patch is not None
        return self.patch.targets(self.teacher.head, taught.patches, whole, progress)


WAYS = {
    "hidden patches only": DinoMethod,
    "student's head on all": StudentEverywhere,
    "both heads on all": BothEverywhere,
}


def main() -> None:
    """Prints the median CPU seconds of each way, and what hidden patches alone save."""
    options = arguments()
    torch.set_num_threads(1)
    config = load(options.preset, ["data.train=none"])
    dtype = autocast_dtype(torch.device("cpu"), options.precision)
    methods = {name: _build(config, way) for name, way in WAYS.items()}
    _check_equal(methods, config, options.batch)
    optimisers = {name: config.optim.build(method.student) for name, method in methods.items()}
    seconds: dict[str, list[float]] = {name: [] for name in WAYS}
    shares = []
    for step in range(options.repeats + 1):  # the first only warms up
        for name, method in methods.items():
            given = _batch(config, options.batch, step)
            took, share = _step(method, given, config, optimisers[name], dtype=dtype)
            seconds[name].append(took)
        shares.append(share)
    hidden = f"{100 * statistics.mean(shares[1:]):.0f} % of the patches hidden"
    print(
        f"{options.preset}, {options.batch} images a step, {dtype or 'float32'}, one thread, "
        f"torch {torch.__version__}; {options.repeats} steps in turn, {hidden}\n"
    )
    _table({name: times[1:] for name, times in seconds.items()})


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--preset", default="ibot-block")
    parser.add_argument("--precision", choices=("auto", "float32", "bf16"), default="auto")
    return parser.parse_args()


def _build(config: Config, way: type[DinoMethod]) -> DinoMethod:
    """The preset's method, its patches dealt with this way."""
    method = build_method(config)
    assert isinstance(method, DinoMethod)
    method.__class__ = way
    return method.train()


def _batch(config: Config, images: int, step: int) -> Batch:
    """Noise: the time does not depend on what is seen."""
    noise = torch.Generator().manual_seed(step)
    crops = {
        name: torch.randn(group.count, images, 3, group.height, group.width, generator=noise)
        for name, group in config.data.crops.groups.items()
    }
    who = torch.arange(images) + step * images
    return Batch(crops, torch.full_like(who, -1), who, torch.zeros_like(who), who, step, images, 0)


def _check_equal(methods: dict[str, DinoMethod], config: Config, images: int) -> None:
    given = _batch(config, images, 0)
    with torch.no_grad():
        losses = [method(given, NOW, Rng(0, 0))["loss"].item() for method in methods.values()]
    if max(losses) - min(losses) > 1e-4 * abs(losses[0]):
        raise RuntimeError(f"the ways differ in the loss they give: {losses}")


def _step(
    method: DinoMethod, given: Batch, config: Config, optimiser: Optimizer, *, dtype: torch.dtype | None
) -> tuple[float, float]:
    """CPU seconds of one whole step, and the share of patches that it hides."""
    start = time.process_time()
    values = train_step(
        method, given, NOW, Rng(0, given.step), optimiser=optimiser, optim=config.optim, dtype=dtype
    )
    return time.process_time() - start, float(values["mask_ratio"])


def _table(seconds: dict[str, list[float]]) -> None:
    ours = next(iter(seconds.values()))
    print("| the patch objective runs on | CPU s a step | hidden patches only save |\n| --- | --- | --- |")
    for name, times in seconds.items():
        low, middle, high = statistics.quantiles([100 * (1 - a / b) for a, b in zip(ours, times)], n=4)
        print(f"| {name} | {statistics.median(times):.2f} | {middle:.1f} % ({low:.1f} to {high:.1f}) |")


if __name__ == "__main__":
    main()
