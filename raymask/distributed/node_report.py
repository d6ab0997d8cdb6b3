"""`raymask doctor --address=URL`: what a cluster's nodes have, and whether that fits this machine."""

from __future__ import annotations

import json
import platform
import secrets
import shlex
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from raymask.distributed import node_facts
from raymask.distributed.dashboard import answers, connect, find_address, is_open
from raymask.distributed.jobs import Job, job_of, wait
from raymask.doctor import Finding

if TYPE_CHECKING:
    from raymask.distributed.jobs_client import JobsClient

SECONDS = 120  # for the job that asks the nodes; one that has to wait for an autoscaler takes longer
_HEAD, _KIND = "node:__internal_head__", "accelerator_type:"


def examine_cluster(address: str) -> Iterator[Finding]:
    """Looks at the cluster whose dashboard is at `address`, then at each of its nodes."""
    where = find_address(address)
    try:
        client = connect(where)
        access = "everybody who reaches it runs programs there: start it with RAY_AUTH_MODE=token"
        yield Finding("cluster", not is_open(where), f"{where}, {access if is_open(where) else 'by token'}")
        ray, python = client.versions()
        yield Finding("ray", True, f"{ray} here and there, Python {platform.python_version()} and {python}")
        nodes = ask(client, where=where)
    except (ValueError, OSError) as error:
        yield Finding("cluster", False, str(error))
        return
    yield Finding("nodes", bool(nodes), _sum(nodes))
    for node in nodes:
        yield describe(node)


def ask(client: JobsClient, *, where: str) -> list[dict]:
    """The facts of every node, by a small job. Raises ValueError where it does not come back with them."""
    identity = f"raymask-doctor-{secrets.token_hex(4)}"
    script = Path(node_facts.__file__).read_text()
    with answers(where):
        client.submit_job(entrypoint=f"python -c {shlex.quote(script)}", submission_id=identity)
        job: Job = job_of(client.get_job_info(identity))
    try:
        job = wait(client, job, where=where, seconds=SECONDS)
    except TimeoutError:
        client.stop_job(identity)
        raise ValueError(f"the nodes have not answered within {SECONDS} seconds") from None
    with answers(where):
        lines = client.get_job_logs(identity).splitlines()
    for line in lines:
        if line.startswith(node_facts.MARK):
            return json.loads(line.removeprefix(node_facts.MARK))
    raise ValueError(f"the job that asks the nodes failed: {lines[-1] if lines else job.message}")


def describe(node: dict) -> Finding:
    """A node: what it has, and what of that is wrong."""
    name = f"node {node['ip']}"
    if "error" in node:
        return Finding(name, False, f"does not answer: {node['error']}")
    resources = node["resources"]
    gpus = int(resources.get("GPU", 0))
    kinds = [key.removeprefix(_KIND) for key in resources if key.startswith(_KIND)]
    has = [
        "head" if _HEAD in resources else "worker",
        f"{resources.get('CPU', 0):g} CPU of {node['cores']} cores",
        f"{gpus} GPU{f' ({kinds[0]})' if kinds else ''}",
        f"{resources.get('memory', 0) / 1e9:.0f} GB",
        f"/dev/shm {node['shm'] / 1e9:.1f} GB",
        f"torch {node['versions']['torch']}",
    ]
    wrong = list(_wrong(node))
    return Finding(name, not wrong, "; ".join([", ".join(has), *wrong]))


def _wrong(node: dict) -> Iterator[str]:
    """What does not fit: other versions than here, or too little shared memory for Ray's object store."""
    theirs, ours = node["versions"]["torch"], version("torch")
    if theirs is None:
        yield "torch is not installed there"
    elif theirs.partition("+")[0] != ours.partition("+")[0]:
        yield f"here torch is {ours}: use one version, or checkpoints and numbers may differ"
    if node["python"].split(".")[:2] != platform.python_version().split(".")[:2]:
        yield f"its Python is {node['python']}, here it is {platform.python_version()}"
    store = node["resources"].get("object_store_memory", 0)
    if node["shm"] < store:
        yield (
            f"Ray's object store wants {store / 1e9:.1f} GB of /dev/shm: enlarge it (docker run "
            "--shm-size, on Kubernetes an emptyDir of medium Memory)"
        )


def _sum(nodes: list[dict]) -> str:
    totals = {name: sum(node["resources"].get(name, 0) for node in nodes) for name in ("CPU", "GPU")}
    return f"{len(nodes)} that live, {totals['CPU']:g} CPU and {totals['GPU']:g} GPU to give away"
