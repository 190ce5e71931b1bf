"""Images: read from files, kept in memory or streamed, augmented, generated."""
