"""The whole configuration of a run: assembles the Settings that live beside the code that reads them.

Reading is in three steps: a preset or a YAML file gives a tree, `key=value` overrides are merged into it, and
pydantic makes a frozen Config of it or refuses with a sentence for each wrong key or value.
"""

from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError, model_validator

from pipelines.data import Data
from pipelines.paths import located
from pipelines.settings import Settings
from raymask import overrides, presets
from raymask.convbackbone import AnyBackbone
from raymask.distributed.ingest_settings import Ingest
from raymask.distributed.settings import Cluster, Workers
from raymask.evaluate.settings import Evaluate
from raymask.masks import Mask
from raymask.methods import MethodSettings
from raymask.methods.dino import Dino
from raymask.optim import Optim
from raymask.plan import Train
from raymask.run import Run
from raymask.sentences import explain
from raymask.trackers.settings import Tracks
from raymask.vit import Backbone


class Config(Settings):
    """A run, complete: two runs with equal configs and data are equal.

    workers: processes on a Ray cluster, such as 4, or 2:8 where their number may change; null is this process
    ingest: who decodes: local, or remote actors on nodes of that cluster
    track: who else is told what metrics.jsonl holds: tensorboard, mlflow, wandb, aim, or their settings
    """

    run: Run = Run()
    data: Data = Data()
    backbone: AnyBackbone = Backbone()
    method: MethodSettings = Dino()
    mask: Mask = Mask()
    optim: Optim = Optim()
    train: Train = Train()
    evaluate: Evaluate = Evaluate()
    workers: Workers | None = None
    cluster: Cluster = Cluster()
    ingest: Ingest = Ingest()
    track: Tracks = ()
    debug: bool = False

    @model_validator(mode="after")
    def _patches_divide_crops(self) -> "Config":
        patch = self.backbone.patch_size
        for name, crops in self.data.crops.groups.items():
            if patch is not None and (crops.height % patch or crops.width % patch):
                raise ValueError(
                    f"backbone.patch_size={patch} does not divide data.crops.{name}_crops.size={crops.size}: "
                    f"choose a multiple of {patch}"
                )
        return self


def load(source: str, changes: list[str] | tuple[str, ...] = ()) -> Config:
    """The config of a preset's name or a YAML file's path, with `key=value` changes over it.

    debug=true among the changes shrinks the run; what the other changes say still holds. Raises ValueError
    with a sentence for each wrong key or value.
    """
    tree, name = presets.find(source)
    given = overrides.parse(list(changes))
    merged = overrides.merge(tree, given, model=Config)
    config = build(merged)
    if given.get("debug") is True:
        from raymask.debug import shrink

        config = build(overrides.merge(to_tree(shrink(config)), given, model=Config))
        name = f"{name}-debug"
    return config if config.run.name else _named(config, name)


def build(tree: dict) -> Config:
    """The config that a raw tree describes. Raises ValueError with a sentence for each wrong key or value."""
    try:
        return Config.model_validate(tree)
    except ValidationError as error:
        raise ValueError(explain(error, root=Config, tree=tree)) from error


def change(config: Config, changes: list[str] | tuple[str, ...]) -> Config:
    """`config` with `key=value` changes over it."""
    return build(overrides.merge(to_tree(config), overrides.parse(list(changes)), model=Config))


def anchored(config: Config) -> Config:
    """The config with data of this machine by absolute paths: it then means the same from any directory."""
    given = {key: getattr(config.data, key) for key in ("train", "val")}
    places = {key: _anchored(place) for key, place in given.items() if isinstance(place, str)}
    return config.model_copy(update={"data": config.data.model_copy(update=places)})


def _anchored(place: str) -> str:
    if "://" in place or place.startswith("pipe:"):
        return place
    found, there = located(place, here=Path.cwd())
    return found if there else place


def to_tree(config: Config) -> dict[str, Any]:
    """The complete tree of plain values, every default written out; `build` makes an equal config of it."""
    return config.model_dump(mode="json")


def to_yaml(config: Config) -> str:
    """The complete config as YAML, in the order of the classes."""
    return yaml.safe_dump(to_tree(config), sort_keys=False, default_flow_style=None, width=100)


def read(path: Path) -> Config:
    """The config of a run's config.yaml, as it stands: no preset, no shrinking."""
    return build(presets.read_tree(path))


def _named(config: Config, name: str) -> Config:
    return config.model_copy(update={"run": config.run.model_copy(update={"name": name})})
