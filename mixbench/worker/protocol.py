"""Constants shared by a stage's process and the launcher; this module does not import torch."""

DONE, FAILED, FULL, INPUT_DAMAGED, STOPPED = 0, 1, 74, 75, 143  # exit codes of the process
LIFELINE = "MIXBENCH_LIFELINE"  # environment variable: a pipe that the launcher keeps open
