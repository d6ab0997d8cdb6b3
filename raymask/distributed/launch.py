"""A run on a Ray cluster: Ray Train starts the workers, watches them and replaces the dead.

Everything that a run leaves is in its directory, so the workers' function is the local one: it continues the
run where its directory says, each time that Ray starts it.
"""

import sys
import tempfile
import threading
from contextlib import nullcontext
from pathlib import Path
from signal import SIGTERM
from typing import Any

from tqdm import tqdm

from raymask import run
from raymask.config import Config, to_tree
from raymask.distributed.bootstrap import connected
from raymask.distributed.follow import followed
from raymask.distributed.preflight import Request, alive, check_storage, request
from raymask.signals import Stopped, StopRequest, ask_to_stop
from raymask.train import changed

_AGAIN = 3  # times that the actor which watches the workers may die


def train_on_ray(config: Config) -> Path:
    """A run by `config.workers` workers on `config.cluster`; returns its directory.

    With run.resume=true a run of that name is continued, if there is one. Raises ValueError, before anything
    is started, where the cluster cannot hold the workers or cannot see the run.
    """
    folder = config.run.folder()
    if not config.run.resume:
        run.refuse_existing(folder)
    with connected(config.cluster, logs=config.debug):
        nodes = alive()
        asked = request(config, [node["Resources"] for node in nodes])
        check_storage(folder.parent, nodes)
        tqdm.write(f"starting {asked}", file=sys.stderr)
        placed = config.run.model_copy(update={"root": str(folder.parent), "resume": True})
        _fit(config.model_copy(update={"run": placed}), asked, folder)
    return folder


def resume_on_ray(folder: Path, changes: list[str] | tuple[str, ...] = ()) -> Path:
    """Continues a run from its last checkpoint, by as many workers as its config says with the changes."""
    config = changed(folder, changes)
    return train_on_ray(config.model_copy(update={"run": config.run.model_copy(update={"resume": True})}))


def _fit(config: Config, asked: Request, folder: Path) -> None:
    """Runs the workers to the end. Raises what ended them, and Stopped if they were asked to stop."""
    shown = (
        nullcontext() if config.debug else followed(folder / "train.log")
    )  # debug shows all that is printed
    with StopRequest() as stop, shown:
        for attempt in range(_AGAIN + 1):
            outcome = _in_thread(config, asked, folder, stop)
            if not isinstance(outcome, BaseException):
                break
            if attempt == _AGAIN or not _lost_controller(outcome):
                raise _told(outcome)
            tqdm.write("the process that watched the workers died: starting again", file=sys.stderr)
    if outcome:
        said = f"stopped; continue with 'raymask resume {folder}'"
        raise Stopped(said, exit_code=128 + (stop.received or SIGTERM))


def _in_thread(config: Config, asked: Request, folder: Path, stop: StopRequest) -> int | BaseException:
    """What the workers returned, or what they ended with.

    Ray Train has a thread of its own, so that signals stay ours: they become a request in the run directory.
    """
    outcome: list[int | BaseException] = []

    def fit() -> None:
        with tempfile.TemporaryDirectory(prefix="raymask-") as notes:  # Ray's own; nothing of the run's
            try:
                outcome.append(_trainer(config, asked, notes).fit().return_value)
            except BaseException as error:
                outcome.append(error)

    thread = threading.Thread(target=fit, daemon=True)
    thread.start()
    passed_on = False
    while thread.is_alive():
        thread.join(0.2)
        if stop.received is not None and not passed_on and folder.exists():
            ask_to_stop(folder)
            passed_on = True
    return outcome[0]


def _trainer(config: Config, asked: Request, notes: str) -> Any:
    import ray.train
    from ray.train.torch import TorchConfig, TorchTrainer

    from raymask.distributed.worker import Watch, work
    from raymask.world import TIMEOUT

    library: Any = ray.train  # its annotations are those of its first version
    function: Any = work
    return TorchTrainer(
        function,
        train_loop_config={"config": to_tree(config), "directory": str(Path.cwd())},
        torch_config=TorchConfig(timeout_s=int(TIMEOUT.total_seconds())),
        scaling_config=library.ScalingConfig(
            num_workers=(asked.fewest, asked.most) if asked.fewest < asked.most else asked.most,
            use_gpu=asked.gpus > 0,
            resources_per_worker=asked.resources,
            elastic_resize_monitor_interval_s=config.cluster.resize,
        ),
        run_config=library.RunConfig(
            name="run",
            storage_path=notes,
            failure_config=library.FailureConfig(max_failures=config.cluster.max_failures),
            callbacks=[Watch()],
            logging_config=library.LoggingConfig("WARNING"),
        ),
    )


def _lost_controller(error: BaseException) -> bool:
    """Whether the actor that watches the workers is gone; all that it knew is in the run directory."""
    import ray.exceptions

    return isinstance(error, ray.exceptions.RayActorError)


def _told(error: BaseException) -> BaseException:
    """What a user should hear: the error that one worker met, rather than that there was one."""
    inner = getattr(error, "controller_failure", None)
    if inner is not None and not isinstance(inner, str):
        return inner
    failures = getattr(error, "worker_failures", None)
    if not failures:
        return error
    rank, first = min(failures.items())
    reason = str(first).strip().splitlines() or [type(first).__name__]
    return OSError(
        f"workers died more often than cluster.max_failures allows; the last time rank {rank} met: "
        f"{type(first).__name__}: {reason[0]}. The run can be continued with 'raymask resume'"
    )
