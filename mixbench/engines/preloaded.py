"""What the fork server imports: the modules that stages need, whichever of them can be imported.

The server is in the launcher's process group, to which shells, ``timeout`` and SLURM send signals.
It ignores them: it must live until the stages have written their checkpoints, and it ends with its
launcher.
"""

import importlib
import signal
from contextlib import suppress

signal.signal(signal.SIGINT, signal.SIG_IGN)
signal.signal(signal.SIGTERM, signal.SIG_IGN)
# An optimizer imports torch._dynamo when it is made.
for _name in ("mixbench.worker.stages", "mixbench.worker.preflight", "timm", "torch._dynamo"):
    with suppress(Exception):  # the stage that needs the module reports it
        importlib.import_module(_name)
