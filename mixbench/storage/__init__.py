"""Where artifacts lie: the store, the lock on a stage, and files that are written whole."""
