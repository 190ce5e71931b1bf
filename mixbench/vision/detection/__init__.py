"""Object detection: annotations, boxes, a detector and its average precision."""
