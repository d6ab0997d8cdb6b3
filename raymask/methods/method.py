"""What the loop knows of a method."""

from abc import ABC, abstractmethod

from torch import Tensor, nn

from pipelines.batch import Batch
from raymask.backbone import VisionBackbone
from raymask.progress import Progress
from raymask.streams import Rng


class Network(nn.Module):
    """A backbone and the head that stands on it."""

    backbone: VisionBackbone
    head: nn.Module

    def __init__(self, backbone: VisionBackbone, head: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head


class Method(nn.Module, ABC):
    """Two networks and an objective. `student` learns by gradient, `teacher` has none.

    Buffers in which a step is summed up differ from rank to rank until `update_teacher`: wrap a method in
    DistributedDataParallel with broadcast_buffers=False.
    """

    student: nn.Module
    teacher: nn.Module

    @abstractmethod
    def forward(self, batch: Batch, progress: Progress, rng: Rng) -> dict[str, Tensor]:
        """The mean loss of these images under "loss"; all other entries are detached, all on the device.

        They are parts of the loss by name, "mask_ratio", "guidance", "masks" (int64 signature), monitors.
        """

    @abstractmethod
    def update_teacher(self, progress: Progress) -> None:
        """After the optimiser step: moving averages, and centers over all ranks."""

    def image_weight(self, progress: Progress) -> float:
        """How many images one counts for in the learning rate (DMJD's adaptive rule)."""
        return 1.0

    def remarks(self) -> list[str]:
        """What a user should know before the first step, a sentence each."""
        return []

    @abstractmethod
    def rates(self, progress: Progress) -> dict[str, float]:
        """The schedules' values at this step, for the log."""
