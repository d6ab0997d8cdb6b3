"""The Kubernetes files say what KubeRay and Kubernetes understand, and what raymask needs of them."""

import copy
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from raymask.distributed import notice
from tests.cluster.files import KUBERNETES, documents
from tests.cluster.schema import check, cluster_of, pods

DOCUMENTS = [(path.name, document) for path in KUBERNETES for document in documents(path)]
RAY = [document for _, document in DOCUMENTS if document["apiVersion"] == "ray.io/v1"]
WRONG = (jsonschema.ValidationError, kubernetes_validate.ValidationError)
each = pytest.mark.parametrize("document", RAY, ids=lambda document: document["kind"])


@pytest.mark.parametrize(("name", "document"), DOCUMENTS, ids=lambda value: str(value)[:30])
def test_the_file_is_valid(name: str, document: dict[str, Any]):
    check(document)


def test_there_are_a_job_and_a_cluster():
    assert sorted(document["kind"] for document in RAY) == ["RayCluster", "RayJob"]


def change(document: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """A copy with `value` at a dotted path."""
    changed = copy.deepcopy(document)
    here: Any = changed
    *above, last = [int(part) if part.isdigit() else part for part in path.split(".")]
    for part in above:
        here = here[part]
    here[last] = value
    return changed


TYPOS = {
    "spec.entrypiont": "python -m raymask",
    "spec.backoffLimit": "5",
    "spec.rayClusterSpec.authOption": {"mode": "token"},
    "spec.rayClusterSpec.authOptions.mode": "disabled",
    "spec.rayClusterSpec.headGroupSpec.rayStartParams.num-cpus": 0,
    "spec.rayClusterSpec.workerGroupSpecs.0.maxReplica": 4,
    "spec.rayClusterSpec.workerGroupSpecs.0.template.spec.toleration": [],
    "spec.rayClusterSpec.workerGroupSpecs.0.template.spec.containers.0.volumeMount": [],
    "spec.rayClusterSpec.workerGroupSpecs.0.template.spec.containers.0.lifecycle.preStopp": {},
    "spec.rayClusterSpec.workerGroupSpecs.0.template.spec.volumes.1.emptyDir.sizelimit": "1Gi",
    "spec.rayClusterSpec.workerGroupSpecs.0.template.spec.terminationGracePeriodSeconds": "120",
}


@pytest.mark.parametrize(("path", "value"), TYPOS.items(), ids=TYPOS)
def test_a_planted_typo_is_found(path: str, value: Any):
    job = next(document for document in RAY if document["kind"] == "RayJob")
    with pytest.raises(WRONG):
        check(change(job, path, value))


def test_a_planted_typo_in_the_storage_is_found():
    volume = next(document for _, document in DOCUMENTS if document["kind"] == "PersistentVolume")
    with pytest.raises(WRONG):
        check(change(volume, "spec.accessMode", ["ReadWriteMany"]))


@each
def test_every_container_runs_one_image_whose_requests_are_its_limits(document: dict[str, Any]):
    containers = [container for pod in pods(document) for container in pod["spec"]["containers"]]
    assert len({container["image"] for container in containers}) == 1
    for container in containers:
        assert container["resources"]["requests"] == container["resources"]["limits"]


@each
def test_every_pod_sees_the_shared_volume_and_has_shared_memory_for_the_object_store(
    document: dict[str, Any],
):
    for pod in pods(document):
        container = pod["spec"]["containers"][0]
        mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
        volumes = {volume["name"]: volume for volume in pod["spec"]["volumes"]}
        assert set(mounts) == set(volumes)
        assert mounts["shared"] == "/mnt/shared" and mounts["shm"] == "/dev/shm"
        assert volumes["shm"]["emptyDir"]["medium"] == "Memory"
        if container["name"] == "ray-worker":
            assert _gib(volumes["shm"]["emptyDir"]["sizeLimit"]) >= 0.3 * _gib(
                container["resources"]["limits"]["memory"]
            )


def _gib(text: str) -> float:
    assert text.endswith("Gi")
    return float(text.removesuffix("Gi"))


@each
def test_nothing_trains_on_the_head_and_gpu_pods_come_and_go(document: dict[str, Any]):
    cluster = cluster_of(document)
    assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    assert cluster["enableInTreeAutoscaling"] and cluster["autoscalerOptions"]["version"] == "v2"
    group = cluster["workerGroupSpecs"][0]
    assert group["minReplicas"] == 0 < group["maxReplicas"]
    assert {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"} in group["template"][
        "spec"
    ]["tolerations"]
    pod = group["template"]["spec"]
    hook = pod["containers"][0]["lifecycle"]["preStop"]["exec"]["command"]
    assert hook[:3] == ["python", "-m", notice.__name__]
    given = notice.arguments().parse_args(hook[3:])
    assert given.from_whom == "leave" and given.seconds < pod["terminationGracePeriodSeconds"]


def test_the_job_may_be_tried_again_and_then_goes_on():
    job = next(document for document in RAY if document["kind"] == "RayJob")["spec"]
    assert job["backoffLimit"] > 0 and "run.resume=true" in job["entrypoint"].split()
    assert yaml.safe_load(job["runtimeEnvYAML"])["env_vars"]
    from raymask.distributed.jobs import GRACE

    stop = yaml.safe_load(job["runtimeEnvYAML"])["env_vars"]["RAY_JOB_STOP_WAIT_TIME_S"]
    assert int(stop) == GRACE


@each
def test_no_secret_is_written_down(document: dict[str, Any]):
    for pod in pods(document):
        for container in pod["spec"]["containers"]:
            assert not [entry for entry in container.get("env", []) if "value" in entry]
