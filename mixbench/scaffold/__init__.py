"""Templates of the methods and tasks that `mixbench new` creates."""
