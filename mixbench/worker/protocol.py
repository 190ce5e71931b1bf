"""Constants shared by a stage's process and the launcher; this module does not import torch."""

# Exit codes of the process.
DONE, FAILED, BAD_DATA, FULL, INPUT_DAMAGED, STOPPED = 0, 1, 65, 74, 75, 143
ELSEWHERE = 76  # another process, of another launcher, is running the stage
LIFELINE = "MIXBENCH_LIFELINE"  # environment variable: a pipe that the launcher keeps open
