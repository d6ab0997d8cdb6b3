"""Reaching a cluster's dashboard, which takes jobs: whatever is wrong with it is one sentence.

Asked in this order: does anything answer, is it Ray, does it take our token, does it run our versions.
"""

from __future__ import annotations

import json
import os
import platform
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from raymask.distributed import token
from raymask.distributed.bootstrap import prepare_environment
from raymask.reason import first_line

if TYPE_CHECKING:
    from raymask.distributed.jobs_client import JobsClient

DEFAULT = "http://127.0.0.1:8265"
PORT = 8265
_FIRST = 10  # seconds for the first answer
_API = "RAY_API_SERVER_ADDRESS"


class NoCluster(ValueError):
    """Nobody answers at the address."""


def find_address(given: str | None, *, configured: str | None = None) -> str:
    """The dashboard's URL: as given, or of cluster.address, or as the environment says, or this machine's.

    configured: cluster.address, where HOST:PORT is that of the cluster itself, not of its dashboard
    """
    if given:
        return _url(given)
    if configured and configured != "auto":
        return _url(configured) if "://" in configured else f"http://{configured.rpartition(':')[0]}:{PORT}"
    environment = os.environ.get(_API) or os.environ.get("RAY_ADDRESS", "")
    return _url(environment) if environment.startswith("http") else DEFAULT


def _url(address: str) -> str:
    url = address if "://" in address else f"http://{address}"
    if not url.startswith(("http://", "https://")):
        raise ValueError(f"the address {address} is no dashboard's: give one such as {DEFAULT}")
    return url.rstrip("/")


def connect(address: str) -> JobsClient:
    """A client of the cluster whose dashboard is at `address`. Raises ValueError with what is wrong."""
    wants_token = _authentication_mode(address) != "disabled"
    place = token.switch_on()
    prepare_environment(local=False)
    os.environ[_API] = address  # Ray's client prefers this variable to what it is given
    from raymask.distributed.jobs_client import JobsClient

    if wants_token and place is None:
        raise ValueError(f"the cluster at {address} asks for a token: {token.missing()}")
    with answers(address, place=place):
        client = JobsClient(address)
        _refuse_other_versions(client, address)
    return client


def is_open(address: str) -> bool:
    """Whether everybody who reaches the cluster may run programs on it."""
    return _authentication_mode(address) == "disabled"


def reach(where: str, *, address: str | None, here: bool) -> JobsClient | None:
    """A client of the cluster; None where nobody named one, and there is none or it may be another's.

    here: whether the run lies on this machine, so that no cluster is needed
    """
    named = address or os.environ.get(_API)
    try:
        return connect(where)
    except (ValueError, ConnectionError) as error:
        if named or not (here or isinstance(error, NoCluster)):
            raise
        return None


@contextmanager
def answers(address: str, *, place: str | None = None) -> Iterator[None]:
    """Within it, what the cluster refuses is a ValueError, and that it is lost a ConnectionError."""
    import requests
    from ray.exceptions import AuthenticationError

    try:
        yield
    except AuthenticationError as error:
        if "required" in str(error).splitlines()[0]:
            raise ValueError(f"the cluster at {address} asks for a token: {token.missing()}") from None
        raise ValueError(
            f"the cluster at {address} refuses the token in {place or token.place()}: it has expired or is "
            "another cluster's; ask whoever started the cluster for its own"
        ) from None
    except (requests.RequestException, ConnectionError) as error:
        raise ConnectionError(f"the cluster at {address} answers no more ({first_line(error)})") from error
    except RuntimeError as error:
        raise ValueError(
            f"the head of the cluster at {address} fails: look at its logs ({first_line(error)})"
        ) from error


def _authentication_mode(address: str) -> str:
    """`token` or `disabled`, which the dashboard tells everybody. Raises ValueError where no dashboard is."""
    try:
        with urllib.request.urlopen(f"{address}/api/authentication_mode", timeout=_FIRST) as answer:
            return json.load(answer)["authentication_mode"]
    except urllib.error.HTTPError as error:
        if error.code >= 500:
            raise ValueError(
                f"the head of the cluster at {address} is dead or fails (HTTP {error.code}): start it again"
            ) from error
        raise ValueError(_no_dashboard(address)) from error
    except TimeoutError as error:
        raise NoCluster(_nobody(address, f"no answer within {_FIRST} seconds")) from error
    except urllib.error.URLError as error:
        reason = getattr(error.reason, "strerror", None) or error.reason
        raise NoCluster(_nobody(address, str(reason).lower())) from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(_no_dashboard(address)) from error


def _nobody(address: str, reason: str) -> str:
    return (
        f"there is no Ray cluster at {address} ({reason}): start one, forward its port {PORT} to this "
        "machine, or give its dashboard's address by --address=http://HOST:PORT"
    )


def _no_dashboard(address: str) -> str:
    return f"what answers at {address} is no Ray dashboard: its port is {PORT} where none was set"


def _refuse_other_versions(client: JobsClient, address: str) -> None:
    """Raises ValueError where Ray, or Python's minor version, is another than on the cluster."""
    import ray

    theirs_ray, theirs_python = client.versions()
    ours = platform.python_version()
    different = [] if theirs_ray == ray.__version__ else [f"Ray {theirs_ray}, here it is {ray.__version__}"]
    if theirs_python.split(".")[:2] != ours.split(".")[:2]:
        different.append(f"Python {theirs_python}, here it is {ours}")
    if different:
        raise ValueError(
            f"the cluster at {address} runs {' and '.join(different)}: use an environment with the cluster's "
            "versions, or an image with these"
        )
