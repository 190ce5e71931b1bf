"""Detection: annotations and boxes, a detector, and how its boxes are scored."""
