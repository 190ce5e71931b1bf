"""The mixing method RICAP for mixbench."""
