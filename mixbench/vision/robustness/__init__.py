"""How a trained model fares on images that were changed: attacked, or corrupted."""
