"""How a launcher enters a Ray cluster, or says in one sentence why it cannot."""

import os
import socket
from typing import Any

from mixbench.errors import UsageError

PATIENCE_S = 10
# A node that is cut off is missed after 11 s instead of 64, and what ran there is lost after 30 s
# instead of never (Ray 2.60): of use where all nodes and the launcher have them.
KEEP_ALIVE = {
    "RAY_grpc_client_keepalive_time_ms": "10000",
    "RAY_grpc_client_keepalive_timeout_ms": "10000",
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "3000",
    "RAY_health_check_failure_threshold": "3",
}


def join(address: str) -> Any:
    """Return Ray, connected to a cluster.

    Raises
    ------
    UsageError
        If it is not installed, or does not answer.
    """
    for name, value in {"RAY_USAGE_STATS_ENABLED": "0", **KEEP_ALIVE}.items():
        os.environ.setdefault(name, value)  # before Ray reads them; it would also call home
    try:
        import ray
    except ImportError as error:
        raise UsageError(
            "--engine ray: Ray is not installed; `pip install mixbench[ray]` brings it."
        ) from error
    host, colon, port = address.rpartition(":")
    if colon and port.isdecimal():  # Ray itself would wait for minutes
        try:
            socket.create_connection((host, int(port)), PATIENCE_S).close()
        except OSError as error:
            raise UsageError(_unreachable(address, error)) from error
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    try:
        if address == "local":
            ray.init(address="local", include_dashboard=False, **quiet)
        else:
            ray.init(address=address, **quiet)
    except (ConnectionError, RuntimeError, ValueError, TimeoutError) as error:
        raise UsageError(_unreachable(address, error)) from error
    return ray


def _unreachable(address: str, error: Exception) -> str:
    first = str(error).strip().partition("\n")[0]
    return (
        f"--engine ray: the cluster at {address!r} cannot be joined ({first}). Start one with `ray "
        "start --head`, of this version of Ray, or take ray.address = 'local'."
    )
