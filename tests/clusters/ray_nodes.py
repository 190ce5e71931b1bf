"""A throw-away Ray cluster of two nodes on this machine, with a make-believe GPU each.

Prints its address. A line on standard input kills the second node, or adds a new one after that;
each is answered by a line. The end of the input ends the cluster.
"""

import sys
from typing import Any

from ray.cluster_utils import Cluster

resources: dict[str, Any] = {
    "num_cpus": 4,
    "num_gpus": 1,
    "object_store_memory": 80 << 20,
}
cluster: Any = Cluster(initialize_head=True, head_node_args=resources)
other = cluster.add_node(**resources)
cluster.wait_for_nodes()
print("address", cluster.address, flush=True)  # noqa: T201  # what it is for
for _ in sys.stdin:
    if other:
        cluster.remove_node(other, allow_graceful=False)
        other = None
    else:
        other = cluster.add_node(**resources)
        cluster.wait_for_nodes()
    print("done", flush=True)  # noqa: T201
cluster.shutdown()
