"""Weakly supervised localization: class activation maps, their boxes and the box accuracy."""
