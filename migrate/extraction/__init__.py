"""A guest's memory out of its stream: as a raw image, as a core that crash(8) opens, or one page of it."""

from migrate.extraction.extract import Extracted, NothingError, extract
from migrate.extraction.single import page, record_body

__all__ = ["Extracted", "NothingError", "extract", "page", "record_body"]
