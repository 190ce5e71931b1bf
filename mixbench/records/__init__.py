"""Records: one validated JSON result for each cell."""
