"""The workers' places on the cluster: saying that they wait for them, and giving back those of the dead."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from raymask.distributed.preflight import Request, alive, fitting

_LOOK = 5.0  # seconds between two looks
_FIRST = 20.0  # seconds without a place after which it is said; starting takes some
_AGAIN = 60.0  # seconds until it is said again
_NOTE = ".place"  # in the run directory


class Waiting:
    """Whether the workers of this process's run have their places, and since when they have not.

    placed: whether they were seen to have them; since: when they were first seen to lack them
    """

    def __init__(self, asked: Request, *, say: Callable[[str], None]) -> None:
        import ray

        self.asked = asked
        self.say = say
        self.job: str = ray.get_runtime_context().get_job_id()
        self.since: float | None = None
        self.placed = False
        self._said: float | None = None

    @property
    def seconds(self) -> float:
        """For how long the workers have had no place."""
        since = self.since
        return 0.0 if since is None else time.monotonic() - since

    def look(self) -> None:
        """Looks, and says so where the workers have had no place for long."""
        held = fitting(self.asked, [node["Resources"] for node in alive()])
        states = {group.state for group in _groups(self.job)}
        self.placed = self.placed or "CREATED" in states
        missing = "CREATED" not in states and held < self.asked.fewest
        if not missing and not states & {"PENDING", "RESCHEDULING"}:
            self.since = self._said = None
            return
        now = time.monotonic()
        self.since = self.since or now
        if now - self.since > _FIRST and (self._said is None or now - self._said > _AGAIN):
            self._said = now
            self.say(self._sentence(held))

    def _sentence(self, held: int) -> str:
        fewest = self.asked.fewest
        need = f"{fewest} worker{'s' if fewest > 1 else ''} with {self.asked.cpus:g} CPU" + (
            f" and {self.asked.gpus:g} GPU" if self.asked.gpus else ""
        )
        why = (
            f"the cluster's nodes hold {held} of them"
            if held < fewest
            else "others use the cluster's nodes, or one was only just lost"
        )
        return (
            f"waiting for {need}, for {self.seconds:.0f} s now: {why}; the run goes on once they have a place"
        )


@contextmanager
def waiting(asked: Request, *, say: Callable[[str], None]) -> Iterator[Waiting]:
    """Within it, a thread looks every few seconds; not in a trial, whose job has others' places, too."""
    import ray
    from ray.util.state.exception import RayStateApiException

    watched, ended = Waiting(asked, say=say), threading.Event()

    def keep_looking() -> None:
        while not ended.wait(_LOOK):
            try:
                watched.look()
            except (RayStateApiException, OSError):  # a cluster without a dashboard cannot say
                watched.since = None

    if ray.get_runtime_context().get_actor_id() is not None:
        yield watched
        return
    thread = threading.Thread(target=keep_looking, daemon=True)
    thread.start()
    try:
        yield watched
    except BaseException:
        ended.set()  # the cluster may not answer any more
        raise
    ended.set()
    thread.join()


def give_back(run: Path) -> None:
    """Frees what a controller that died held for the workers of a run; this process was its driver.

    Ray's own cleaner does it only where there is a dashboard, and the machine belongs to no other cluster. In
    a trial, whose job has the places of other trials as well, only that which its workers noted is freed.
    """
    import ray
    from ray.util.state.exception import RayStateApiException

    context = ray.get_runtime_context()
    if context.get_actor_id() is not None:
        free_noted(run)
        return
    with suppress(RayStateApiException):  # a cluster without a dashboard cannot say
        for group in _groups(context.get_job_id()):
            if group.state != "REMOVED":
                _free(group.placement_group_id)


def note(run: Path) -> None:
    """Notes in the run directory which place this worker and its peers have."""
    from ray.util import get_current_placement_group

    group = get_current_placement_group()
    if group is not None:
        beside = run / f"{_NOTE}-new"
        beside.write_text(group.id.hex())
        beside.replace(run / _NOTE)


def free_noted(run: Path) -> None:
    """Frees the place that the workers of a run noted last; nobody trains there any more."""
    noted = run / _NOTE
    if noted.exists():
        _free(noted.read_text())
        noted.unlink()


def forget(run: Path) -> None:
    """Removes what workers noted: Ray has ended them, and freed their place."""
    (run / _NOTE).unlink(missing_ok=True)


def _free(name: str) -> None:
    import ray
    from ray.util.placement_group import PlacementGroup, remove_placement_group

    group: Any = ray.PlacementGroupID.from_hex(name)
    remove_placement_group(PlacementGroup(group))


def _groups(job: str) -> list[Any]:
    """The placement groups that a job has made. Raises RayStateApiException where there is no dashboard."""
    from ray._private.worker import get_dashboard_url
    from ray.util.state import list_placement_groups
    from ray.util.state.exception import ServerUnavailable

    dashboard = get_dashboard_url()  # of the cluster that was joined; the machine may belong to several
    if not dashboard:
        raise ServerUnavailable("the cluster has no dashboard")
    return list_placement_groups(
        address=f"http://{dashboard}", filters=[("creator_job_id", "=", job)], limit=1000, timeout=10
    )
