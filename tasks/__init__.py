"""Tasks, one file or folder each; the file or folder name is the task name."""
