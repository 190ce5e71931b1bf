"""Figures of the PatchMix paper."""
