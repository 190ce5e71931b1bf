"""Discovery of method and task files, and reading of their declarations without running them."""
