"""Image data: reading, splits in memory or streamed from files, augmentation, generation."""
