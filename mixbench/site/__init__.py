"""Build the leaderboards as a static site that works from disk, without a network."""
