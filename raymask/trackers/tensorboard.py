"""TensorBoard's event files."""

from collections.abc import Mapping
from pathlib import Path

import yaml
from torch.utils.tensorboard import SummaryWriter

from raymask.trackers.settings import TensorBoard
from raymask.trackers.tracker import About


class ToTensorBoard:
    """Scalars by name. A run that goes on purges what lies beyond its checkpoint, and writes it again."""

    def __init__(self, settings: TensorBoard, about: About) -> None:
        folder = Path(settings.folder) / about.name if settings.folder else about.folder / "tensorboard"
        again = folder.exists() and any(folder.iterdir())
        self.writer = SummaryWriter(str(folder), purge_step=about.begin if again else None)
        if not again:
            text = yaml.safe_dump(about.config, sort_keys=False)
            self.writer.add_text("config", "".join(f"    {line}\n" for line in text.splitlines()))

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Adds the scalars, and flushes: a run that is killed has shown them."""
        for name, value in metrics.items():
            self.writer.add_scalar(name, value, step)
        self.writer.flush()

    def close(self) -> None:
        """Closes the file."""
        self.writer.close()
