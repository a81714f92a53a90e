"""`migrate corpus` and its commands."""
