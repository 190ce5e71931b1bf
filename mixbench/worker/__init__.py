"""The process that runs a stage: ``python -m mixbench.worker STORE KEY``."""
