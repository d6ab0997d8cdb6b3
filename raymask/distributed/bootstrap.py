"""Joining a Ray cluster, or starting one on this machine for as long as it is needed."""

import logging
import os
import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tqdm import tqdm

from raymask.distributed import token
from raymask.distributed.door import knock, locked, nobody
from raymask.distributed.lifeline import LostCluster
from raymask.distributed.session import own_session, remove_session
from raymask.distributed.settings import Cluster
from raymask.reason import first_line
from raymask.signals import Stopped, signals_kept

# Read by Ray when it is imported or by the processes it starts; what a user has set stays.
_ALWAYS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # relative paths keep their meaning
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    # Deaths are told by our own sentences.
    "RAY_DEDUP_LOGS_SKIP_REGEX": "A worker died or was killed while executing|has been marked dead because",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # metrics.jsonl is ours
    "TUNE_FUNCTION_THREAD_TIMEOUT_S": "30",  # a trial that is stopped closes its loader before the next one
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
}
_LOCAL = {
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",  # nobody preempts this machine, and it complains each time
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
}

# Ends of a cluster of our own after which nobody asks for Ray's logs.
_IN_ORDER = (Stopped, ValueError, KeyboardInterrupt, SystemExit)
_TOKENS = "ray._private.authentication.authentication_token_setup"  # the logger


def prepare_environment(*, local: bool) -> None:
    """Sets Ray's defaults in the environment, before Ray is imported; `local`: for a cluster of our own."""
    for name, value in (_ALWAYS | (_LOCAL if local else {})).items():
        os.environ.setdefault(name, value)


@contextmanager
def connected(cluster: Cluster, *, cpus: int | None = None, logs: bool = False) -> Iterator[None]:
    """Within it, Ray is initialised on `cluster`; what was started for it ends with it, its folder included.

    cpus: of a cluster that is started here; None: the cores of this machine
    logs: whether everything that its processes print is shown, and not only what they say through train.log

    A process that has joined a cluster already (a test's) stays in it. Raises ValueError where there is no
    cluster to join.
    """
    prepare_environment(local=cluster.address is None)
    if cluster.address is not None:
        token.switch_on()
    os.environ.setdefault("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", f"{max(30, cluster.wait):.0f}")
    import ray

    if ray.is_initialized():
        yield
        return
    own = cluster.address is None
    tqdm.write(
        "starting Ray on this machine" if own else f"joining Ray at {cluster.address}", file=sys.stderr
    )
    logging.getLogger(_TOKENS).addFilter(_is_news)
    with signals_kept():  # Ray would have SIGTERM end this process at once
        if cluster.address is None:
            ray.init(num_cpus=cpus, include_dashboard=True, dashboard_host="127.0.0.1", **_said(logs))
            token.close()
        else:
            _join(cluster.address, logs=logs)
    session = own_session() if own else None
    try:
        yield
    except LostCluster:
        raise  # there is nobody to say farewell to, and Ray would wait for an answer
    except BaseException as error:
        _end(session if isinstance(error, _IN_ORDER) else None)  # else Ray's logs may say why
        raise
    _end(session)


def _end(session: Path | None) -> None:
    """Leaves the cluster, or ends our own, whose folder goes with it if it is named."""
    import ray

    ray.shutdown()
    if session is not None:
        remove_session(session)


def _join(address: str, *, logs: bool) -> None:
    """Joins a cluster that runs already. Raises ValueError with what is wrong with it."""
    import ray

    knock(address)
    try:
        ray.init(address=address, **_said(logs))
    except ConnectionError as error:
        raise nobody(address) from error
    except Exception as error:
        said = first_line(error)
        if "ersion mismatch" in str(error):
            raise ValueError(
                f"the Ray cluster at {address} runs other versions than this process (here Ray "
                f"{ray.__version__} on Python {platform.python_version()}): {said}"
            ) from error
        if "uthentication" in type(error).__name__ or "token" in said.lower():
            raise locked(address) from error
        raise


def _is_news(record: logging.LogRecord) -> bool:
    """Whether a remark of Ray's says more than that a token is asked for, as it should be."""
    return not record.getMessage().startswith("Token authentication is enabled")


def _said(logs: bool) -> dict:
    return {"logging_level": "WARNING", "configure_logging": True, "log_to_driver": logs}
