"""Records and blocks, field by field."""
