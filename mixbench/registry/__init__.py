"""What the method and task files define, found and read without running them."""
