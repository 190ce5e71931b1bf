"""From what is asked to the stages that answer it; pure."""
