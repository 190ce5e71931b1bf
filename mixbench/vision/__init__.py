"""Building blocks of image tasks: image data, models, metrics and base classes of tasks."""
