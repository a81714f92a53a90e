"""A stream taken apart for people to look at: what lies where, and what the receiver would make of it."""

from migrate.inspection.logbook import Entry, Header, Layer, Logbook
from migrate.inspection.reading import Inspection, inspect

__all__ = ["Entry", "Header", "Inspection", "Layer", "Logbook", "inspect"]
