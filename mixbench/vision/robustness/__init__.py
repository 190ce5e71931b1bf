"""Robustness of trained models to adversarial attacks and image corruptions."""
