"""A run on a Ray cluster: Ray Train starts the workers, watches them and replaces the dead.

Everything that a run leaves is in its directory, so the workers' function is the local one: it continues the
run where its directory says, each time that Ray starts it.
"""

import sys
import tempfile
import threading
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from tqdm import tqdm

from pipelines.present import check_present, check_readable
from raymask.config import Config, to_tree
from raymask.distributed.bell import Bell
from raymask.distributed.bootstrap import connected
from raymask.distributed.driven import Driven
from raymask.distributed.follow import followed
from raymask.distributed.job_command import paths
from raymask.distributed.lifeline import Lifeline
from raymask.distributed.places import forget, give_back, waiting
from raymask.distributed.preflight import Request, alive, crowded, fitting, request
from raymask.distributed.starting import Starting
from raymask.distributed.storage import BUCKET, are_here, check_storage
from raymask.driver import driving, note, refuse_driven
from raymask.mirror import agree, mirror_of, refuse_taken
from raymask.reason import first_line
from raymask.run import discard_if_untrained
from raymask.signals import Stopped, StopRequest, forget_stop
from raymask.train import changed, continued, only_here

WAITING = "ray train"  # the thread that waits for Ray, and may wait for ever where no worker is left
_AGAIN = 3  # times that the actor which watches the workers may die
_DYING = 20.0  # seconds that workers may take to die whose driver was lost
_UNHEARD = 15.0  # seconds without workers after which a request to stop is not for them any more


def train_on_ray(config: Config) -> Path:
    """A run by `config.workers` workers on `config.cluster`; returns its directory.

    With run.resume=true a run of that name is continued, if there is one. Raises ValueError, before anything
    is started, where the cluster cannot hold the workers or cannot see the run.
    """
    folder = config.run.folder()
    refuse_taken(config.run)
    with only_here(folder, patience=_DYING):  # nobody is left of a driver before
        if config.run.resume:
            agree(config.run)
    if (folder / "config.yaml").exists():
        continued(folder, config)  # refuses another run's name now, rather than in the workers
    refuse_driven(folder, patience=_DYING)
    forget_stop(folder)  # once: workers that start again must not forget what was asked meanwhile
    new = not folder.exists()
    with driving(folder) as mark:
        try:
            _drive(config, mark)
        except Stopped:
            if new and not (folder / "config.yaml").exists():
                discard_if_untrained(folder)  # a worker was about to make it
            raise
    mirror = mirror_of(config.run)
    if mirror is not None:
        mirror.bring_end(folder, keep=config.train.keep)  # for the report
    return folder


def _drive(config: Config, mark: Path) -> None:
    """Starts the workers and stays with them to the end. Raises ValueError where they cannot be started."""
    folder = config.run.folder()
    note(mark, "Ray and the workers are started, which takes half a minute")
    if config.cluster.address is None:
        _check_files(config)
    with connected(config.cluster, logs=_is_heard(config)):
        nodes = alive()
        if config.cluster.address is not None and are_here(nodes):
            _check_files(config)
        asked = request(config, [node["Resources"] for node in nodes])
        if config.run.mirror is None:
            places = [node for node in nodes if fitting(asked, [node["Resources"]])]
            check_storage(folder.parent, places, key="run.root", instead=BUCKET, say=_say)
        tqdm.write(f"starting {asked}", file=sys.stderr)
        if config.cluster.cpus is None and (remark := crowded(asked)) is not None:
            _say(remark)
        placed = config.run.model_copy(update={"root": str(folder.parent), "resume": True})
        carried = config.model_copy(update={"run": placed})
        _fit(carried, asked, folder, mark)


def _check_files(config: Config) -> None:
    """Raises ValueError where what is read is not there, as workers here would half a minute later."""
    check_present(config.data)
    for key, path in paths(to_tree(config)):
        if key.endswith(".weights"):
            check_readable(Path(path), key=key)


def resume_on_ray(folder: Path, changes: list[str] | tuple[str, ...] = ()) -> Path:
    """Continues a run from its last checkpoint, by as many workers as its config says with the changes."""
    config = changed(folder, changes)
    refuse_driven(folder, patience=0)
    return train_on_ray(config.model_copy(update={"run": config.run.model_copy(update={"resume": True})}))


def _fit(config: Config, asked: Request, folder: Path, mark: Path) -> None:
    """Runs the workers to the end. Raises what ended them, and Stopped if they were asked to stop."""
    log = None if _is_heard(config) else folder / "train.log"
    shown = nullcontext() if log is None else followed(log)
    lifeline = Lifeline(then=f"once there is one, continue with 'raymask resume {folder}'")

    noted = threading.Event()  # the mark says that Ray is started
    noted.set()

    def say(text: str) -> None:
        _say(text)
        note(mark, text)
        noted.set()

    with StopRequest() as stop, shown, waiting(asked, say=say) as places:
        starting = Starting(log, places, compiles=config.train.compile, say=say)
        driven = Driven(config, asked, folder, mark, noted, stop, Bell(), places, starting, lifeline)
        if driven.is_asked():
            raise driven.stopped()
        for attempt in range(_AGAIN + 1):
            outcome = _in_thread(driven)
            if not isinstance(outcome, BaseException):
                break
            if attempt == _AGAIN or not _lost_controller(outcome):
                raise _told(outcome)
            lifeline.wait()
            give_back(folder)
            _say("the process that watches the workers died: all start again from the last checkpoint")
    forget(folder)
    if outcome:
        raise driven.stopped()


def _is_heard(config: Config) -> bool:
    """Whether all that workers print is shown: for a debugger, and where train.log may be on another disk."""
    return config.debug or config.run.mirror is not None


def _in_thread(driven: Driven) -> int | BaseException:
    """What the workers returned, or what they ended with.

    Ray Train has a thread of its own, so that signals stay ours: they ring for the workers.
    Raises LostCluster where there is none any more, and Stopped where no worker is left to be asked.
    """
    outcome: list[int | BaseException] = []
    # Ray's own notes, nothing of the run's, beside what is said by the process that watches the workers.
    with tempfile.TemporaryDirectory(prefix="raymask-", ignore_cleanup_errors=True) as notes:
        said = Path(notes) / "said"

        def fit() -> None:
            try:
                outcome.append(_trainer(driven, notes, said).fit().return_value)
            except BaseException as error:
                outcome.append(error)

        thread = threading.Thread(target=fit, daemon=True, name=WAITING)
        thread.start()
        with followed(said):
            _watch(driven, thread)
    return outcome[0]


def _watch(driven: Driven, thread: threading.Thread) -> None:
    """Until the thread has ended: looks for the cluster, and passes on that the run shall stop."""
    rung = False
    while thread.is_alive():
        thread.join(0.2)
        driven.lifeline.check()
        driven.look()
        if not driven.is_asked():
            continue
        if not rung:
            driven.bell.ring()
            rung = True
        if driven.places.seconds > _UNHEARD or driven.may_leave:
            raise driven.stopped()


def _say(text: str) -> None:
    tqdm.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')}  {text}", file=sys.stderr)


def _trainer(driven: Driven, notes: str, said: Path) -> Any:
    import ray.train
    from ray.train.torch import TorchConfig, TorchTrainer

    from raymask.distributed.worker import Watch, work
    from raymask.world import TIMEOUT

    config, asked = driven.config, driven.asked
    given = {
        "config": to_tree(config),
        "directory": str(Path.cwd()),
        "bell": driven.bell,
        "marker": driven.mark,
    }
    library: Any = ray.train  # its annotations are those of its first version
    function: Any = work
    return TorchTrainer(
        function,
        train_loop_config=given,
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
            callbacks=[Watch(said, failures=config.cluster.max_failures)],
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
    return OSError(
        f"workers died more often than cluster.max_failures allows; the last time rank {rank} met: "
        f"{type(first).__name__}: {first_line(first)}. The run can be continued with 'raymask resume'"
    )
