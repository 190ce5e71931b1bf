"""One stage in a process of its own: ``python -m mixbench.worker STORE KEY``."""
