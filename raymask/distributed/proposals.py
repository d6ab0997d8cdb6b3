"""Who proposes the settings of a trial: Optuna's TPE, a grid or chance, all through one Optuna study.

The study lives in memory. What it knows is refilled from results.json when a search goes on, so that there
is one truth on disk and nothing is pickled.
"""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from raymask.distributed.grid import grid
from raymask.distributed.space import Space, Values

Params = dict[str, Any]


class Proposer:
    """Asks for settings and is told what became of them."""

    def __init__(
        self, space: Space, *, kind: str, directions: Sequence[str], seed: int, trials: int, known: int = 0
    ) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.space = space
        # Another stream for each continuation: the first draws of a seed were made already.
        drawing = seed + 1_000_003 * known
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            sampler = (
                optuna.samplers.TPESampler(
                    seed=drawing,
                    multivariate=True,
                    group=True,
                    constant_liar=True,
                    n_startup_trials=max(4, min(10, trials // 3)),
                )
                if kind == "optuna"
                else optuna.samplers.RandomSampler(seed=drawing)
            )
        both = optuna.study.StudyDirection
        towards = [both.MAXIMIZE if direction == "max" else both.MINIMIZE for direction in directions]
        self.study = optuna.create_study(directions=towards, sampler=sampler)
        self.asked: dict[str, Any] = {}
        for params in grid(space, trials=trials)[known:] if kind == "grid" else ():
            self.study.enqueue_trial(params)
        self.left = len(self.study.trials) if kind == "grid" else None

    def ask(self, name: str) -> tuple[Params, Values] | None:
        """What to draw next, by the space's own names, and the settings that it means; None at the end."""
        if self.left is not None:
            if self.left == 0:
                return None
            self.left -= 1
        trial = self.study.ask()
        values = self.space.draw(trial)  # type: ignore[arg-type]
        self.asked[name] = trial
        return dict(trial.params), values

    def recall(self, name: str, params: Mapping[str, Any]) -> None:
        """Puts a trial of before back in its place."""
        import optuna

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            trial = optuna.trial.FixedTrial(dict(params))
            self.space.draw(trial)  # type: ignore[arg-type]
        distributions = trial.distributions
        self.study.add_trial(
            optuna.trial.create_trial(
                state=optuna.trial.TrialState.RUNNING, params=dict(params), distributions=distributions
            )
        )
        number = len(self.study.trials) - 1
        self.asked[name] = optuna.trial.Trial(self.study, self.study.trials[number]._trial_id)

    def note(self, name: str, score: float, *, check: int) -> None:
        """What a trial measured on its way; a study of several objectives does not ask."""
        if len(self.study.directions) == 1:
            self.asked[name].report(score, check)

    def tell(self, name: str, scores: Sequence[float] | None, *, ended: bool = True) -> None:
        """How a trial ended: with its scores, failed (None), or stopped before its end."""
        from optuna.trial import TrialState

        trial = self.asked.pop(name)
        if scores is None:
            self.study.tell(trial, state=TrialState.FAIL)
        elif not ended and len(scores) == 1:
            self.study.tell(trial, state=TrialState.PRUNED)
        else:
            self.study.tell(trial, list(scores))
