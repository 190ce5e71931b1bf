"""Where data sets lie, what identifies them, and how they are fetched and verified."""
