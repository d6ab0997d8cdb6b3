"""Ray's own client of the Jobs API, which waits for ever by default, with a limit and without its remarks."""

import logging
from typing import Any

from ray.dashboard.modules.dashboard_sdk import SubmissionClient
from ray.job_submission import JobSubmissionClient

SECONDS = 30  # for one answer; an upload counts as answered while bytes flow

_TALKATIVE = (
    "ray.dashboard.modules.dashboard_sdk",
    "ray.dashboard.modules.job.sdk",
    "ray._private.runtime_env.packaging",
    "ray._private.runtime_env.working_dir",
)


class JobsClient(JobSubmissionClient):
    """JobSubmissionClient at an address, with a limit on the wait for each answer."""

    def __init__(self, address: str) -> None:
        for name in _TALKATIVE:
            logging.getLogger(name).setLevel(logging.ERROR)
        super().__init__(address)

    # The one place through which the pinned client sends everything; a test holds it to that.
    def _do_request(self, method: str, endpoint: str, **options: Any) -> Any:  # as the client calls it
        options.setdefault("timeout", SECONDS)
        return SubmissionClient._do_request(self, method, endpoint, **options)

    def versions(self) -> tuple[str, str]:
        """The versions of Ray and Python that the cluster's head runs."""
        found = self._do_request("GET", "/api/v0/cluster_metadata").json()["data"]
        return found["rayVersion"], found["pythonVersion"]
