"""Where remote shards are kept on this machine, and how patiently they are fetched."""

import os
from pathlib import Path
from typing import Any

from pydantic import Field, model_validator

from pipelines.settings import Settings


class Cache(Settings):
    """The local copies of remote shards. A bare string stands for `folder`.

    folder: where they lie; none: below the user's cache directory. Processes may share it
    gb: their size together, in 10^9 bytes, at most; what is needed last goes first
    fetches: shards that are fetched at once
    patience: seconds for which one shard may fail to make progress, or a local file fail for a reason of the
        machine's, before the run stops
    opening: seconds for which a server may be out of reach as a data set is opened
    """

    folder: str | None = None
    gb: float = Field(default=50, gt=0)
    fetches: int = Field(default=8, ge=1)
    patience: float = Field(default=600, ge=0)
    opening: float = Field(default=30, ge=0)

    @model_validator(mode="before")
    @classmethod
    def _from_a_bare_path(cls, value: Any) -> Any:
        return {"folder": value} if isinstance(value, str) else value

    @property
    def path(self) -> Path:
        """The folder that is meant."""
        if self.folder is not None:
            return Path(self.folder).expanduser()
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        return Path(base) / "raymask" / "shards"

    @property
    def bytes(self) -> int:
        return int(self.gb * 1e9)
