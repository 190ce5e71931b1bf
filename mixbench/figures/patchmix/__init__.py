"""The figures of the PatchMix paper."""
