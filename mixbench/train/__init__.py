"""The training loop: one step after the other, the same for every method."""
