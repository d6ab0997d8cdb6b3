"""Which trackers follow a run, and where they keep what they are told."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator

from pipelines.remote.urls import has_secrets, public
from pipelines.settings import Settings


class TensorBoard(Settings):
    """Event files.

    folder: where; null is RUN/tensorboard
    """

    kind: Literal["tensorboard"] = "tensorboard"
    folder: str | None = None


class MLflow(Settings):
    """A run of an MLflow experiment.

    uri: of the tracking store; null takes MLFLOW_TRACKING_URI, or else mlflow.db (SQLite) beside the runs
    """

    kind: Literal["mlflow"] = "mlflow"
    uri: str | None = None
    experiment: str = "raymask"

    @field_validator("uri")
    @classmethod
    def _without_secrets(cls, uri: str | None) -> str | None:
        if uri is not None and has_secrets(uri):
            raise ValueError(
                f"{public(uri)} was given with a password, which config.yaml would keep: set "
                "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
            )
        return uri


class WeightsAndBiases(Settings):
    """A run of a W&B project.

    entity: the team; null is the user's own
    mode: auto is online for who has logged in (or set WANDB_API_KEY), and else offline, in RUN/wandb
    """

    kind: Literal["wandb"] = "wandb"
    project: str = "raymask"
    entity: str | None = None
    mode: Literal["auto", "online", "offline"] = "auto"


class Aim(Settings):
    """A run of an Aim repository.

    repo: folder or aim://HOST:PORT; null is the folder aim beside the runs
    """

    kind: Literal["aim"] = "aim"
    repo: str | None = None
    experiment: str = "raymask"


Track = Annotated[TensorBoard | MLflow | WeightsAndBiases | Aim, Field(discriminator="kind")]


def _spelled_out(value: Any) -> Any:
    """[{"kind": "mlflow"}] from "mlflow", ["mlflow"] or {"kind": "mlflow"}."""
    several = [] if value is None else list(value) if isinstance(value, list | tuple) else [value]
    return [{"kind": one} if isinstance(one, str) else one for one in several]


Tracks = Annotated[tuple[Track, ...], BeforeValidator(_spelled_out)]
