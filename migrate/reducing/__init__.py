"""A stream made smaller, or anonymous."""
