"""The mixing method ricap, for mixbench."""
