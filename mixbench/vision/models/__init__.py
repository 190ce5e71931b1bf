"""Backbones by name. All return `Output`, with the depth and size of their feature maps known."""
