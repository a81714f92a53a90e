"""reducing."""
