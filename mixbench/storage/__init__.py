"""The store of artifacts, the lock of a stage, and atomic reading and writing of files."""
