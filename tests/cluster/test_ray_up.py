"""The files of `ray up` are what Ray's own launcher accepts; nobody is asked over the network."""

import copy
import shlex
import socket
from pathlib import Path
from typing import Any

import pytest
from jsonschema import ValidationError

from raymask.distributed import notice
from tests.cluster.files import RAY_UP, documents

each = pytest.mark.parametrize("path", RAY_UP, ids=lambda path: path.stem)


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch):
    """Whoever opens a connection fails."""

    def refused(*arguments: object) -> None:
        raise AssertionError(f"a connection was opened: {arguments}")

    monkeypatch.setattr(socket.socket, "connect", refused)
    monkeypatch.setattr(socket, "getaddrinfo", refused)


def check(config: dict[str, Any]) -> dict[str, Any]:
    """The complete config, as the launcher sees it. Raises ValidationError (Ray 2.60, a private function)."""
    from ray.autoscaler._private.util import prepare_config, validate_config

    prepared = prepare_config(copy.deepcopy(config))
    validate_config(prepared)
    return prepared


@each
def test_the_launcher_accepts_the_file(path: Path):
    prepared = check(documents(path)[0])
    assert prepared["max_workers"] == 8 and prepared["head_node_type"] in prepared["available_node_types"]


def change(config: dict[str, Any], key: str, value: Any) -> dict[str, Any]:
    """A copy with `value` at a dotted path."""
    changed = copy.deepcopy(config)
    here = changed
    *above, last = key.split(".")
    for part in above:
        here = here[part]
    here[last] = value
    return changed


TYPOS = {
    "max_worker": 3,
    "max_workers": "eight",
    "docker.imgae": "x",
    "available_node_types.gpu.min_worker": 1,
    "available_node_types.gpu.resources": {"GPU": "one"},
    "auth.ssh_usr": "ubuntu",
    "head_node_type": "haed",
    "idle_timeout_minutes": "ten",
}


@each
@pytest.mark.parametrize(("key", "value"), TYPOS.items(), ids=TYPOS)
def test_a_planted_typo_is_found(path: Path, key: str, value: Any):
    with pytest.raises((ValidationError, ValueError)):
        check(change(documents(path)[0], key, value))


@each
def test_every_node_asks_for_the_token_and_none_shows_its_dashboard_to_the_world(path: Path):
    config = documents(path)[0]
    assert "--env RAY_AUTH_MODE=token" in config["docker"]["run_options"]
    assert config["file_mounts"] == {"/home/ray/.ray/auth_token": "~/.ray/auth_token"}
    assert "chmod 600 /home/ray/.ray/auth_token" in config["setup_commands"]
    (head,) = [line for line in config["head_start_ray_commands"] if "--head" in line]
    assert "--dashboard-host=127.0.0.1" in head and "--num-cpus=0" in head


@each
def test_gpu_nodes_are_on_spot_and_the_head_is_not(path: Path):
    types = documents(path)[0]["available_node_types"]
    assert "spot" in str(types["gpu"]["node_config"]).lower()
    assert "spot" not in str(types["head"]["node_config"]).lower()
    assert types["gpu"]["min_workers"] == 0 < types["gpu"]["max_workers"]


@each
def test_a_notice_of_the_cloud_is_watched_for_on_every_worker(path: Path):
    (watch,) = [line for line in documents(path)[0]["worker_start_ray_commands"] if notice.__name__ in line]
    words = shlex.split(watch.partition(f"{notice.__name__} ")[2].partition(">")[0])
    given = notice.arguments().parse_args(words)
    assert (given.from_whom, given.address) == (path.stem, "$RAY_HEAD_IP:6379")


@each
def test_the_shared_file_system_is_mounted_on_the_host_and_given_to_the_container(path: Path):
    config = documents(path)[0]
    assert any(
        "mountpoint -q /mnt/shared || sudo mount" in line for line in config["initialization_commands"]
    )
    assert "--volume /mnt/shared:/mnt/shared" in config["docker"]["run_options"]


def ec2(node_config: dict[str, Any]) -> str:
    """What EC2 would say of the parameters of an instance, by botocore's model of it; empty: nothing."""
    from botocore.session import Session
    from botocore.validate import ParamValidator

    shape = Session().get_service_model("ec2").operation_model("RunInstances").input_shape
    report = ParamValidator().validate({"MinCount": 1, "MaxCount": 1, **node_config}, shape)
    return report.generate_report()


@pytest.mark.parametrize("kind", ["head", "gpu"])
def test_the_instances_of_aws_have_parameters_that_ec2_knows(kind: str):
    config = documents(RAY_UP[0])[0]["available_node_types"][kind]["node_config"]
    assert ec2(config) == ""
    assert "InstanceTyp" in ec2({**config, "InstanceTyp": "x"})
    ebs = copy.deepcopy(config)
    ebs["BlockDeviceMappings"][0]["Ebs"]["VolumeSize"] = "300"
    assert "VolumeSize" in ec2(ebs)


# Of the Compute Engine API, as far as the file goes.
INSTANCE = {"machineType", "disks", "guestAccelerators", "metadata", "scheduling"}
SCHEDULING = {
    "provisioningModel",
    "instanceTerminationAction",
    "onHostMaintenance",
    "preemptible",
    "automaticRestart",
}
DISK = {"boot", "autoDelete", "type", "initializeParams"}
IMAGE = {"diskSizeGb", "sourceImage", "diskType"}


def compute_engine(config: dict[str, Any]) -> set[str]:
    """The fields of an instance that Compute Engine does not know, as far as the file goes."""
    strange = set(config) - INSTANCE
    for disk in config["disks"]:
        strange |= set(disk) - DISK | set(disk["initializeParams"]) - IMAGE
    for entry in config.get("scheduling", []):
        strange |= set(entry) - SCHEDULING
    return strange


@pytest.mark.parametrize("kind", ["head", "gpu"])
def test_the_instances_of_gcp_have_fields_that_compute_engine_knows(kind: str):
    config = documents(RAY_UP[1])[0]["available_node_types"][kind]["node_config"]
    assert compute_engine(config) == set()
    assert compute_engine({**config, "machineTyp": "x"}) == {"machineTyp"}
    disks = copy.deepcopy(config)
    disks["disks"][0]["initializeParams"]["diskSizeGB"] = 300
    disks["scheduling"] = [{"preemptable": True}]
    assert compute_engine(disks) == {"diskSizeGB", "preemptable"}
