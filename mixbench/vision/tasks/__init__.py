"""Base classes of tasks: classification, multi-label classification, transfer."""
