"""The beginnings of methods that `mixbench new` writes."""
