"""Leaderboards: ranked tables built from records, their statistics, and their output formats."""
