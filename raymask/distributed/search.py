"""What `raymask tune` is asked for: the settings of a search, apart from those of its trials."""

from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Literal

from pydantic import Field, PositiveInt, field_validator, model_validator

from pipelines.settings import Settings
from raymask import presets
from raymask.config import Config
from raymask.overrides import settings_of
from raymask.run import Run

Scheduler = Literal["asha", "pbt", "pb2", "none"]
Proposals = Literal["optuna", "grid", "random"]
Against = Literal["none", "seconds", "flops", "teacher_flops"]
POPULATION = ("pbt", "pb2")  # schedulers that move settings themselves, while trials run


class Search(Settings):
    """A search, complete.

    space: a name in tune_spaces/ or the path of a Python file
    preset: what every trial starts from, as for `raymask train`
    budget: images that all trials together may see; each has budget / trials, a stopped one sees fewer
    trials: how many settings are tried
    checks: how often a trial is evaluated, evenly over its length; the scheduler decides there
    metric: what is optimised, an evaluation's name such as eval/knn20_top1; null is the space's own
    mode: whether more of it is better; null where its name tells
    against: a second objective to be kept low: seconds of the device, multiply-accumulates of all steps
        (flops), or those of the frozen teacher; null is the space's own
    scheduler: asha stops what falls behind, pbt and pb2 move the settings of a population; null is asha, or
        none where there is a second objective, which asha knows nothing of
    search: who proposes the settings: Optuna's TPE, a grid, or chance; null is optuna, for pbt and pb2 chance
    at_once: most trials at one time; null is what the cluster holds
    seed: of the proposals; that of the trials is run.seed
    name, root: directory of the search; null takes the names of space and preset
    """

    space: str
    preset: str
    budget: PositiveInt
    trials: PositiveInt = 16
    checks: int = Field(4, ge=1)
    metric: str | None = None
    mode: Literal["max", "min"] | None = None
    against: Against | None = None
    scheduler: Scheduler | None = None
    search: Proposals | None = None
    at_once: PositiveInt | None = None
    seed: int = Field(0, ge=0)
    name: str | None = None
    root: str = "runs"

    @field_validator("name")
    @classmethod
    def _is_one_folder(cls, name: str | None) -> str | None:
        return Run(name=name).name

    @model_validator(mode="after")
    def _population_moves_by_itself(self) -> "Search":
        if self.scheduler in POPULATION and self.search in ("optuna", "grid"):
            raise ValueError(
                f"scheduler={self.scheduler} moves the settings itself and cannot go with "
                f"search={self.search}: leave search out, or choose scheduler=asha"
            )
        if self.scheduler in POPULATION and self.trials < 2:
            raise ValueError(f"scheduler={self.scheduler} needs a population: give trials=4 or more")
        return self

    @property
    def evolves(self) -> bool:
        """Whether settings change while a trial runs."""
        return self.scheduler in POPULATION

    def folder(self) -> Path:
        """The directory of the search, as an absolute path."""
        return Run(name=self.name, root=self.root).folder()


def parse(space: str, words: Sequence[str]) -> tuple[Search, list[str]]:
    """The settings of the search, and the `key=value` changes that are meant for every trial.

    Raises ValueError, a sentence for each wrong key or value.
    """
    own, changes = [f"space={space}"], list[str]()
    for word in words:
        key = word.partition("=")[0].strip()
        if key not in Search.model_fields and "." not in key and key not in Config.model_fields:
            raise ValueError(_unknown(word, key))
        (own if key in Search.model_fields else changes).append(word)
    _refuse_what_the_search_decides(changes)
    given = {word.partition("=")[0].strip() for word in own}
    if lacking := [f"'{key}' is missing: {what}" for key, what in _NEEDED.items() if key not in given]:
        raise ValueError("\n".join(lacking))
    return settings_of(Search, own), changes


_NEEDED = {
    "preset": "say what every trial starts from, a preset (`raymask presets` lists them) or a YAML file, "
    "such as preset=dino-random-mask-laptop",
    "budget": "say how many images all trials together may see, such as budget=400000",
}
# What a search sets in its trials: their places, and their length by its budget.
_OWN_WORDS = {
    "run.name": "name=NAME names the search",
    "run.root": "root=DIR says where the search is written",
    "train.steps": "budget=IMAGES and trials=N say how long a trial is",
    "train.epochs": "budget=IMAGES and trials=N say how long a trial is",
    "evaluate.every_images": "checks=N says how often a trial is evaluated",
    "train.checkpoint_images": "checks=N says how often a trial is evaluated, and writes a checkpoint",
}


def _refuse_what_the_search_decides(changes: Sequence[str]) -> None:
    for change in changes:
        key = change.partition("=")[0].strip()
        if key in _OWN_WORDS:
            raise ValueError(f"{key} cannot be set for the trials of a search: {_OWN_WORDS[key]}")


def _unknown(word: str, key: str) -> str:
    if "=" not in word:
        preset = word.removesuffix(presets.LAPTOP) in presets.names() or word.endswith(".yaml")
        meant = f"preset={word}" if preset else "trials=16"
        return f"'{word}' is not key=value; a setting is given as, for instance, {meant}"
    known = [*Search.model_fields, *Config.model_fields]
    near = get_close_matches(key, known, n=1, cutoff=0.6)
    hint = f": did you mean '{near[0]}'?" if near else f": a search has {', '.join(Search.model_fields)}"
    return f"unknown key '{key}'{hint}"
