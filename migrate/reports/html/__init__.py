"""The report as one HTML document that needs nothing else: no network, no script to read it, no colour to tell."""
