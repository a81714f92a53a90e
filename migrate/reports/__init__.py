"""Renderers, grouped by what they render."""
