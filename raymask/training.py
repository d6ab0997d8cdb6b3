"""Everything a run is made of, built and checked before anything is written."""

from dataclasses import dataclass

import torch
from torch import nn
from torch.optim import Optimizer

from pipelines.data import open_train_and_val
from pipelines.source import Source
from raymask.augment import with_augment
from raymask.backbone import VisionBackbone
from raymask.config import Config
from raymask.device import autocast_dtype, compile_
from raymask.evaluate import Evaluation, open_evaluation
from raymask.feed import check_feed
from raymask.heads import DinoHead
from raymask.methods import Method, build_method
from raymask.methods.labels import with_classes
from raymask.methods.views import MASKED_GROUPS
from raymask.parallel import Parallel, parallelise
from raymask.plan import Plan, plan
from raymask.trackers import refuse_missing
from raymask.world import World


@dataclass(frozen=True)
class Training:
    """The parts of one run.

    method: the networks and their objective; parallel: the same, exchanging gradients among ranks
    dtype: what matrix products run in, or None for float32
    remark: what there is to say on where crops are made, or None
    """

    config: Config
    world: World
    device: torch.device
    dtype: torch.dtype | None
    source: Source
    plan: Plan
    method: Method
    parallel: Parallel
    optimiser: Optimizer
    evaluation: Evaluation
    remark: str | None = None


def assemble(config: Config, *, world: World, device: torch.device) -> Training:
    """The parts that a config asks for. Raises ValueError, in a sentence, where they do not fit together."""
    refuse_missing(config.track)
    source, _ = open_train_and_val(config.data)
    config = with_classes(config, source)
    config, remark = with_augment(config, source, world=world, device=device)
    images = config.data.epoch_length(len(source))
    steps = plan(config.train, images=images, evaluate_images=config.evaluate.every_images)
    check_feed(config, batch=steps.batch, world=world)
    method = build_method(config)
    for group, crops in config.data.crops.groups.items():
        for backbone in _backbones(method.student):
            rows, columns = backbone.grid(crops.height, crops.width)
            if group in MASKED_GROUPS[config.mask.views]:
                config.mask.check(rows * columns)
    synchronise_batch_norm(method, world=world, device=device, batch=steps.batch, chunk=config.train.chunk)
    method.to(device).train()
    if config.train.compile:
        compile_(*_backbones(method.student), *_backbones(method.teacher))
    return Training(
        config=config,
        world=world,
        device=device,
        dtype=autocast_dtype(device, config.train.precision),
        source=source,
        plan=steps,
        method=method,
        # Before the optimiser: it replaces the parameters where they are shared among ranks.
        parallel=parallelise(method, world=world, device=device, sharing=config.train.sharing),
        optimiser=config.optim.build(method.student),
        evaluation=open_evaluation(config),
        remark=remark,
    )


def synchronise_batch_norm(
    method: nn.Module, *, world: World, device: torch.device, batch: int, chunk: int | None
) -> None:
    """Makes batch norm in heads see the whole batch of all ranks, as the official code does.

    Raises ValueError where it cannot: the numbers would then depend on how a batch is divided.
    """
    heads = [each for each in method.modules() if isinstance(each, DinoHead) and each.has_batch_norm]
    if not heads:
        return
    share = -(-batch // world.size)
    if chunk is not None and chunk < share:
        raise ValueError(
            f"method.head.batch_norm=true needs all {share} images of a process in one forward, but "
            f"train.chunk={chunk}: set train.chunk=null or method.head.batch_norm=false"
        )
    if world.size > 1 and device.type != "cuda":
        raise ValueError(
            f"method.head.batch_norm=true with {world.size} processes needs CUDA, where batch norm can be "
            f"synchronised, but the device is {device.type}: start one process, or set "
            "method.head.batch_norm=false"
        )
    if world.size > 1:
        for head in heads:
            nn.SyncBatchNorm.convert_sync_batchnorm(head)


def _backbones(network: nn.Module) -> list[VisionBackbone]:
    """The backbones of one side: one, or none where a method has something else there."""
    found = getattr(network, "backbone", network)
    return [found] if isinstance(found, VisionBackbone) else []
