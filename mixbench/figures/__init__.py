"""Figures of finished cells, drawn from their records and artifacts in the store."""
