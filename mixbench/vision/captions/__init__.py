"""Sentences about images: their words, how they are scored, and a model that writes them."""
