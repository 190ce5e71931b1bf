"""What a stage's process and the launcher that starts it agree on. Imports no torch."""

DONE, FAILED, FULL, INPUT_DAMAGED, STOPPED = 0, 1, 74, 75, 143  # exit codes of the process
LIFELINE = "MIXBENCH_LIFELINE"  # names a pipe that is open as long as the launcher lives
