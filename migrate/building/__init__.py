"""Guests and streams to order, out of what `streams` declares."""
