"""Training: the training loop, data loading, checkpoints and CUDA graphs."""
