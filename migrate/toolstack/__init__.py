"""toolstack."""
