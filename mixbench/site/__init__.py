"""The leaderboards as a static site, which opens from disk without a network."""
