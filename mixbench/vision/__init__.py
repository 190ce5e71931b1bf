"""What tasks on images are made of: images, models, metrics and base classes."""
