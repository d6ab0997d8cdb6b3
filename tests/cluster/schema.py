"""The fields of KubeRay 1.7 that our files use, in a schema that knows no others; pods are Kubernetes' own.

Hand-written from the API reference of ray.io/v1. A field that is missing here is added here first.
"""

from typing import Any

import jsonschema
import kubernetes_validate

KUBERNETES = "1.33"

_TEXT = {"type": "string", "minLength": 1}
_COUNT = {"type": "integer", "minimum": 0}
_TRUTH = {"type": "boolean"}


def _object(required: tuple[str, ...] = (), **properties: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(required),
        "additionalProperties": False,
    }


_START = {"type": "object", "additionalProperties": {"type": "string"}}  # numbers must be quoted
_POD = _object(("spec",), metadata={"type": "object"}, spec={"type": "object"})
_HEAD = _object(("rayStartParams", "template"), rayStartParams=_START, template=_POD, serviceType=_TEXT)
_GROUP = _object(
    ("groupName", "minReplicas", "maxReplicas", "template"),
    groupName=_TEXT,
    replicas=_COUNT,
    minReplicas=_COUNT,
    maxReplicas=_COUNT,
    numOfHosts=_COUNT,
    idleTimeoutSeconds=_COUNT,
    rayStartParams=_START,
    template=_POD,
)
_AUTOSCALER = _object(
    version={"enum": ["v1", "v2"]},
    upscalingMode={"enum": ["Default", "Aggressive", "Conservative"]},
    idleTimeoutSeconds=_COUNT,
    resources={"type": "object"},
)
_CLUSTER = _object(
    ("rayVersion", "headGroupSpec", "workerGroupSpecs", "authOptions"),
    rayVersion=_TEXT,
    enableInTreeAutoscaling=_TRUTH,
    autoscalerOptions=_AUTOSCALER,
    authOptions=_object(("mode",), mode={"const": "token"}, secretName=_TEXT),
    headGroupSpec=_HEAD,
    workerGroupSpecs={"type": "array", "items": _GROUP, "minItems": 1},
)
_JOB = _object(
    ("entrypoint", "rayClusterSpec"),
    entrypoint=_TEXT,
    submissionMode={"enum": ["K8sJobMode", "HTTPMode", "SidecarMode", "InteractiveMode"]},
    backoffLimit=_COUNT,
    activeDeadlineSeconds={"type": "integer", "minimum": 1},
    preRunningDeadlineSeconds={"type": "integer", "minimum": 1},
    shutdownAfterJobFinishes=_TRUTH,
    ttlSecondsAfterFinished=_COUNT,
    suspend=_TRUTH,
    runtimeEnvYAML=_TEXT,
    rayClusterSpec=_CLUSTER,
)


def check(document: dict[str, Any]) -> None:
    """Raises jsonschema's or kubernetes_validate's ValidationError for what neither of them knows."""
    if document.get("apiVersion") != "ray.io/v1":
        kubernetes_validate.validate(document, KUBERNETES, strict=True)
        return
    spec = {"RayJob": _JOB, "RayCluster": _CLUSTER}[document["kind"]]
    metadata = _object(("name",), name=_TEXT, namespace=_TEXT, labels={"type": "object"})
    known = {"apiVersion": _TEXT, "kind": _TEXT, "metadata": metadata, "spec": spec}
    jsonschema.validate(document, _object(tuple(known), **known))
    for pod in pods(document):
        wrapped = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, **pod}
        kubernetes_validate.validate(wrapped, KUBERNETES, strict=True)


def cluster_of(document: dict[str, Any]) -> dict[str, Any]:
    """The RayClusterSpec of a RayJob or a RayCluster."""
    return document["spec"].get("rayClusterSpec", document["spec"])


def pods(document: dict[str, Any]) -> list[dict[str, Any]]:
    """The pod templates: the head's first."""
    cluster = cluster_of(document)
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    return [group["template"] for group in groups]
