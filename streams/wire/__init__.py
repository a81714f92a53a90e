"""Byte layouts, each declared once: `framing` (headers, standard library only), the rest with construct."""
