"""A request to stop that reaches workers on any machine, through the small store in the cluster's head.

The run directory may lie on another disk than the driver's, and workers that begin anew forget what it asked.
"""

import secrets


class Bell:
    """Rung once by the driver, heard by whoever trains."""

    def __init__(self) -> None:
        self.key = f"raymask-stop-{secrets.token_hex(8)}"

    def ring(self) -> None:
        """Asks the workers to stop after a checkpoint."""
        from ray.experimental.internal_kv import _internal_kv_put

        _internal_kv_put(self.key, b"1")

    def is_rung(self) -> bool:
        """Whether they were asked."""
        from ray.experimental.internal_kv import _internal_kv_get

        return _internal_kv_get(self.key) is not None
