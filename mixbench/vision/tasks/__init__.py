"""Base classes of image tasks: classification, multi-label classification and fine-tuning."""
