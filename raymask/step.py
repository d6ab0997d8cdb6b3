"""One training step."""

import torch
from torch import Tensor

from pipelines.batch import Batch
from raymask.device import autocast
from raymask.optim import Optim, clip_, freeze_last_layer
from raymask.parallel import Parallel, bare, exchanging, ranks
from raymask.progress import Progress
from raymask.streams import Rng


def train_step(
    method: Parallel,
    batch: Batch,
    progress: Progress,
    rng: Rng,
    *,
    optimiser: torch.optim.Optimizer,
    optim: Optim,
    chunk: int | None = None,
    dtype: torch.dtype | None = None,
) -> dict[str, Tensor | float]:
    """Guide -> scores -> masks -> follower -> objective, then one update of the student and of the teacher.

    In every method one network, the guide, sees the whole crop and runs first; the other, the follower, sees
    what the mask leaves:

    | method | guide | scores | strategy | follower | hidden patches | objective |
    |---|---|---|---|---|---|---|
    | DINO + random masks | EMA teacher | none | random | student (global views)
      | mask token, dropped or zeroed | cross-view [CLS] |
    | AttMask on iBOT / DINO | EMA teacher | teacher's [CLS] attention | attention high / hint / low
      | student (global views) | mask token | cross-view [CLS] + hidden patches (iBOT) |
    | MaskedKD | student | student's [CLS] attention | keep the highest | frozen teacher | dropped
      | soft or hard logits + labels |
    | DMJD | what gives the targets (HOG, ...) | none | disjoint, V views | student | dropped
      | regression on hidden + visible patches |

    MAE and ConvMAE are DMJD with one view and without its visible branch.

    The batch is worked through in chunks of `chunk` images (None: all at once) whose gradients add up to
    those of the whole batch over all ranks, whatever their shares; matrix products run in `dtype` (None: as
    the weights). Returns what the method reported, weighted so that the mean over ranks is the mean over the
    global batch (whole numbers are signatures: their sum; DINO's `teacher_spread`, no mean over images,
    depends on how the batch is divided), `grad_norm` before clipping, and the rates of this step as plain
    numbers. Tensors stay on the device: nothing here waits for it.
    """
    rates = optim.set_rates(
        optimiser, progress, global_batch=batch.rows * bare(method).image_weight(progress)
    )
    optimiser.zero_grad(set_to_none=True)
    reports = []
    parts = batch.chunks(chunk) if chunk else [batch]
    for index, part in enumerate(parts):
        weight = len(part) * ranks(method) / batch.rows
        with exchanging(method, last=index == len(parts) - 1):
            with autocast(part.samples.device, dtype):
                report = method(part, progress, rng)
            (report["loss"] * weight).backward()
        reports.append({name: _share(value.detach(), weight) for name, value in report.items()})
    metrics = {name: torch.stack([report[name] for report in reports]).sum(0) for name in reports[0]}
    metrics["grad_norm"] = clip_(optimiser, optim.clip)
    if progress.epoch < optim.freeze_last_layer:
        freeze_last_layer(optimiser)
    optimiser.step()
    bare(method).update_teacher(progress)
    return metrics | rates | bare(method).rates(progress)


def _share(value: Tensor, weight: float) -> Tensor:
    """A mean's contribution to the mean of the whole batch; a signature's to the sum."""
    return value * weight if value.is_floating_point() else value
