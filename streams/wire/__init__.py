"""Byte layouts, each declared once, with the standard library alone: headers in `framing`, structures as `layouts`.

What reads fields with numpy takes `views` of them, what edits and builds them takes `constructs`.
"""
