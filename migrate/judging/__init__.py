"""One stream, and its verdict."""
