"""Tells Ray that a node is about to be taken away, so that runs on it write a checkpoint and go on elsewhere.

    python -m raymask.distributed.notice leave --seconds 90   this node leaves; returns once it may be ended
    python -m raymask.distributed.notice aws                  beside Ray on a spot instance: waits for notice
    python -m raymask.distributed.notice gcp

For pods `leave` is a preStop hook. A cloud's notice is read from the metadata server of the instance: AWS
says two minutes ahead that it takes an instance back, GCP half a minute.
"""

import argparse
import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from datetime import UTC, datetime

from raymask.distributed.token import switch_on
from raymask.reason import first_line

AWS = "http://169.254.169.254"
GCP = "http://metadata.google.internal"
_EVERY = 5.0  # seconds between two looks, as AWS advises
_ANSWER = 5.0  # seconds for an answer
_HALF_A_MINUTE = 25.0  # of the half minute that GCP gives
_DEAD = 1  # of GcsNodeInfo.state


def arguments() -> argparse.ArgumentParser:
    """What may be asked for."""
    parser = argparse.ArgumentParser(prog="python -m raymask.distributed.notice", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("from_whom", choices=("leave", "aws", "gcp"))
    parser.add_argument("--seconds", type=float, default=90, help="how long a node that leaves has")
    parser.add_argument(
        "--address", help="HOST:PORT of Ray's head; without it that of $RAY_ADDRESS, or of here"
    )
    parser.add_argument("--ip", help="address by which Ray knows this node, where it has several")
    parser.add_argument("--metadata", help="URL of the metadata server, instead of the cloud's own")
    return parser


def main(words: list[str] | None = None) -> None:
    """The command line."""
    parser = arguments()
    asked = parser.parse_args(words)
    switch_on()
    seconds, why = asked.seconds, "this node is being ended"
    if asked.from_whom == "aws":
        seconds, why = _wait(lambda: aws(asked.metadata or AWS)), "AWS takes the instance back"
    elif asked.from_whom == "gcp":
        seconds, why = _wait(lambda: gcp(asked.metadata or GCP)), "Google takes the instance back"
    print(f"{why} in {seconds:.0f} s: Ray is told", flush=True)  # noqa: T201
    from ray.exceptions import RayError

    try:
        leave(asked.address, ip=asked.ip, seconds=seconds, why=why)
    except (ValueError, ConnectionError, RayError) as error:
        parser.exit(1, f"error: {first_line(error)}\n")


def leave(address: str | None, *, ip: str | None, seconds: float, why: str) -> None:
    """Has Ray drain this node; returns when nothing runs on it any more, or `seconds` later.

    Raises ValueError where the cluster knows no such node, or refuses.
    """
    from ray._private import services
    from ray._raylet import GcsClient  # type: ignore[attr-defined]
    from ray.core.generated import autoscaler_pb2
    from ray.util import get_node_ip_address

    head, until = services.canonicalize_bootstrap_address_or_die(address or ""), time.time() + seconds
    client, here = GcsClient(address=head), ip or get_node_ip_address()
    alive = {node: known for node, known in _nodes(client).items() if known[1]}
    node = next((node for node, (there, _) in alive.items() if there == here), None)
    if node is None:
        others = ", ".join(sorted(there for there, _ in alive.values()))
        raise ValueError(f"the cluster at {head} has no node {here}, but {others}: say which by --ip=ADDRESS")
    reason = autoscaler_pb2.DrainNodeReason.Value("DRAIN_NODE_REASON_PREEMPTION")  # type: ignore[attr-defined]
    accepted, refusal = client.drain_node(node, reason, why, int(1000 * until))
    if not accepted:
        raise ValueError(f"Ray does not let {here} go: {refusal}")
    while time.time() < until and _nodes(client).get(node, ("", False))[1]:
        time.sleep(1)


def _nodes(client: object) -> dict[str, tuple[str, bool]]:
    """{id of a node: (address, whether it is alive)}"""
    found = client.get_all_node_info(timeout=_ANSWER)  # type: ignore[attr-defined]
    return {node.hex(): (info.node_manager_address, info.state != _DEAD) for node, info in found.items()}


def aws(metadata: str) -> float | None:
    """Seconds until AWS ends this instance, or None as long as it does not (instance metadata, version 2)."""
    lasts = {"X-aws-ec2-metadata-token-ttl-seconds": "60"}
    token = _read(f"{metadata}/latest/api/token", lasts, method="PUT")
    if token is None:
        return None
    said = _read(f"{metadata}/latest/meta-data/spot/instance-action", {"X-aws-ec2-metadata-token": token})
    if said is None:
        return None
    try:
        at = datetime.strptime(json.loads(said)["time"], "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    except (ValueError, KeyError, TypeError):
        return None  # no notice that is known
    return max(0.0, (at - datetime.now(UTC)).total_seconds())


def gcp(metadata: str) -> float | None:
    """Seconds until Google ends this instance, or None as long as it does not."""
    said = _read(f"{metadata}/computeMetadata/v1/instance/preempted", {"Metadata-Flavor": "Google"})
    return _HALF_A_MINUTE if said == "TRUE" else None


def _wait(look: Callable[[], float | None]) -> float:
    """Looks until there is a notice."""
    while (seconds := look()) is None:
        time.sleep(_EVERY)
    return seconds


def _read(url: str, headers: dict[str, str], *, method: str = "GET") -> str | None:
    """What the metadata server says; None where it says nothing, or does not answer just now."""
    request = urllib.request.Request(url, headers=headers, method=method)
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # it is of this machine alone
    try:
        with direct.open(request, timeout=_ANSWER) as answer:
            return answer.read(4096).decode().strip()
    except (urllib.error.URLError, OSError):
        return None


if __name__ == "__main__":
    main()
