"""Ray's client of the Jobs API never waits for ever: what it sends goes through one place, with a limit."""

import inspect
import re
import socket

import pytest
import requests
from ray.dashboard.modules import dashboard_sdk
from ray.dashboard.modules.job import sdk

from raymask.distributed import jobs_client
from raymask.distributed.jobs_client import JobsClient
from tests.distributed.test_job_refusals import _at_home, cluster, server  # noqa: F401  (a fixture)

_SENDS = re.compile(r"requests\.(?:request|get|post|put|patch|delete|head|Session)\(")


def test_the_pinned_client_sends_everything_through_one_place():
    """But the tail of a log, which is an open connection."""
    anywhere = _SENDS.findall(inspect.getsource(dashboard_sdk) + inspect.getsource(sdk))
    there = _SENDS.findall(inspect.getsource(dashboard_sdk.SubmissionClient._do_request))
    assert there and len(anywhere) == len(there)


def test_a_head_that_takes_questions_and_never_answers_is_given_up(monkeypatch: pytest.MonkeyPatch):
    with server(cluster(mode="disabled")) as address:
        client = JobsClient(address)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setattr(jobs_client, "SECONDS", 0.3)
        client._address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(requests.Timeout):
            client.list_jobs()
