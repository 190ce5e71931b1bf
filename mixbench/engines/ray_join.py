"""The connection of a launcher to a Ray cluster."""

import logging
import os
import socket
from functools import partial
from types import ModuleType

from mixbench.errors import UsageError

PATIENCE_S = 10
# With these values, Ray 2.60 notices a disconnected node after 11 s instead of 64 s, and reports
# its tasks as lost after 30 s instead of never. All nodes and the launcher must have them.
KEEP_ALIVE = {
    "RAY_grpc_client_keepalive_time_ms": "10000",
    "RAY_grpc_client_keepalive_timeout_ms": "10000",
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "3000",
    "RAY_health_check_failure_threshold": "3",
}


def join(address: str) -> ModuleType:
    """Connect to a Ray cluster, and return the module `ray`.

    Parameters
    ----------
    address
        Address of the cluster's head node, ``auto``, or ``local`` to start a cluster.

    Raises
    ------
    UsageError
        If Ray is not installed, or the cluster cannot be reached.
    """
    for name, value in {"RAY_USAGE_STATS_ENABLED": "0", **KEEP_ALIVE}.items():
        os.environ.setdefault(name, value)  # read on import; also turns off usage reports
    try:
        import ray
    except ImportError as error:
        raise UsageError(
            "--engine ray: Ray is not installed. Install it by `pip install mixbench[ray]`."
        ) from error
    host, colon, port = address.rpartition(":")
    if colon and port.isdecimal():  # Ray would wait for minutes for a missing host
        try:
            socket.create_connection((host, int(port)), PATIENCE_S).close()
        except OSError as error:
            raise UsageError(_unreachable(address, error)) from error
    connect = partial(ray.init, log_to_driver=False, logging_level=logging.ERROR)
    try:
        if address == "local":
            connect(address="local", include_dashboard=False)
        else:
            connect(address=address)
    except (ConnectionError, RuntimeError, ValueError, TimeoutError) as error:
        raise UsageError(_unreachable(address, error)) from error
    return ray


def _unreachable(address: str, error: Exception) -> str:
    first = str(error).strip().partition("\n")[0]
    return (
        f"--engine ray: cannot connect to the cluster at {address!r} ({first}). Start one with "
        "`ray start --head` of the same Ray version, or set address = 'local' under [ray]."
    )
