"""Planning: turns a request into cells and stages, without running anything."""
