"""The evidence: one validated record for every cell."""
