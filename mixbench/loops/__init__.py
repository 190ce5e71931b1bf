"""Mixing methods in training loops of the user's own."""
