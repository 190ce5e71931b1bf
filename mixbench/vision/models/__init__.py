"""Backbones by name, which return `Output` and know the shape of their feature maps."""
