"""One file (or folder) per task; the file's name is the task's name."""
