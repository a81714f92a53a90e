"""What tests of looking at streams share: asking a question of one, and the law of its fields."""

from migrate.inspection.logbook import Header
from migrate.inspection.reading import inspect
from migrate.inspection.records.shown import fields_of


def look(source, question, **options):
    """The answer to a question of a stream."""
    return inspect(source, then=question, **options)


def leaves(fields):
    """Fields without parts that lie somewhere."""
    for field in fields:
        if field.fields:
            yield from leaves(field.fields)
        elif field.offset is not None and field.value is not None:
            yield field


def check_fields(inspection, found):
    """Every number stands in the stream where its field says, little-endian, up to where the next one begins.

    What lies behind it there and belongs to no field is zero.
    """
    fields = list(leaves(fields_of(inspection, found, everything=True)))
    ends = [*(field.offset for field in fields[1:]), found.body + found.length]
    order = "big" if found.name in (Header.IMAGE, Header.LIBXL) else "little"
    raws = inspection.read((field.offset, end - field.offset) for field, end in zip(fields, ends, strict=True))
    for field, raw in zip(fields, raws, strict=True):
        if isinstance(field.value, int):
            assert int.from_bytes(raw, order, signed=field.value < 0) == field.value, field
        elif isinstance(field.value, bytes):
            assert raw == field.value.ljust(len(raw), b"\0"), field
        elif isinstance(field.value, tuple):
            size = len(raw) // len(field.value)
            numbers = [int.from_bytes(raw[at : at + size], order) for at in range(0, len(raw), size)]
            assert numbers == list(field.value), field
    return fields
