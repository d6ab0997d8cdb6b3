"""Knocking at a cluster's head: whether it is there, takes our token, and is of our version of Ray.

Ray itself asks for minutes, and says no more in the end than that it could not connect.
"""

from typing import Any

from raymask.distributed import token

_PATIENCE = 10.0  # seconds for an answer


def knock(address: str) -> None:
    """Raises ValueError where the cluster at HOST:PORT cannot be joined; other spellings are left to Ray."""
    import grpc
    import ray
    from ray._private.grpc_utils import init_grpc_channel
    from ray.core.generated import gcs_service_pb2, gcs_service_pb2_grpc

    messages: Any = gcs_service_pb2  # whose classes are made when it is imported
    host, _, port = address.rpartition(":")
    if not host or "/" in host or not port.isdigit():
        return
    with init_grpc_channel(address) as channel:
        head = gcs_service_pb2_grpc.NodeInfoGcsServiceStub(channel)
        try:
            answer = head.CheckAlive(messages.CheckAliveRequest(), timeout=_PATIENCE)
        except grpc.RpcError as error:
            raise _refusal(address, error) from error
    if answer.ray_version != ray.__version__:
        raise ValueError(
            f"the Ray cluster at {address} runs Ray {answer.ray_version}, and this process has "
            f"{ray.__version__}: install the cluster's version here"
        )


def nobody(address: str) -> ValueError:
    """What is said where no cluster is."""
    return ValueError(
        f"there is no Ray cluster at cluster.address={address}: start one with 'ray start --head', or "
        "set cluster.address=null to start one on this machine for the run"
    )


def locked(address: str) -> ValueError:
    """What is said where the token is not the cluster's."""
    return ValueError(f"the Ray cluster at {address} refuses this process's token: {token.missing()}")


def _refusal(address: str, error: Exception) -> ValueError:
    import grpc

    code = error.code() if isinstance(error, grpc.Call) else None
    return locked(address) if code is grpc.StatusCode.UNAUTHENTICATED else nobody(address)
