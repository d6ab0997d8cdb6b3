"""Whether the cluster is still there: Ray ends a process whose cluster is gone without a word."""

import socket
import time

_PAUSE = 0.5  # seconds between two looks
_GRACE = 40.0  # seconds for which a head may be away, as when it is replaced; after 60 Ray ends this process


class LostCluster(OSError):
    """The cluster that a run was on is gone; the run can be continued on another."""


class Lifeline:
    """Looks for the cluster's head and for this process's own node, by their open ports.

    then: what a user can do once the cluster is gone
    """

    def __init__(self, *, then: str) -> None:
        import ray

        context = ray.get_runtime_context()
        own = next(node for node in ray.nodes() if node["NodeID"] == context.get_node_id())
        self.own = (own["NodeManagerAddress"], own["NodeManagerPort"])
        host, _, port = context.gcs_address.rpartition(":")
        self.head = (host.strip("[]"), int(port))
        self.then = then
        self._looked = 0.0
        self._missed = 0  # looks in a row for which this process's node was away
        self._away: float | None = None  # since when the head is

    def check(self) -> None:
        """Raises LostCluster where it is gone. To be called often; looks only every so often."""
        now = time.monotonic()
        if now - self._looked < _PAUSE / 2:
            return
        self._looked = now
        self._missed = 0 if _listens(self.own) else self._missed + 1
        self._away = None if _listens(self.head) else self._away or now
        if self._missed > 1 or (self._away is not None and now - self._away > _GRACE):
            where = f"{self.head[0]}:{self.head[1]}"
            raise LostCluster(f"the Ray cluster at {where} is gone, its head does not answer: {self.then}")

    def wait(self) -> None:
        """Returns once the cluster answers, after a loss. Raises LostCluster where it is gone."""
        looks = 0
        while looks < 3 or self._missed or self._away is not None:
            time.sleep(_PAUSE)
            self.check()
            looks += 1


def _listens(address: tuple[str, int]) -> bool:
    """Whether something takes connections there; a host that is only slow counts as there."""
    try:
        with socket.create_connection(address, timeout=2):
            return True
    except TimeoutError:
        return True
    except OSError:
        return False
