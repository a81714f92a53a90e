"""Streams, what is expected of them, and whether it comes true."""
