"""Engines that run stages as processes, the scheduler, and the progress display."""
