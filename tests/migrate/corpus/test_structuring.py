"""What is read of earlier results is of the types that it should be, down to its last field."""

import dataclasses
import types
from typing import get_args, get_type_hints

import pytest

from migrate.building.builder import StreamBuilder
from migrate.corpus.structuring import StructureError, structured
from migrate.judging.check import check
from migrate.judging.report import Report
from migrate.rules.declaring import Rule

# A rule is never read: it is looked up by its id.
LOOKED_UP = {Rule}


def classes(kind):
    """Classes of values that a hint names, each with its own hints."""
    if not (isinstance(kind, type) and dataclasses.is_dataclass(kind)):
        for inner in get_args(kind):
            yield from classes(inner)
    elif kind not in LOOKED_UP:
        yield kind
        for hint in get_type_hints(kind, localns={"Any": object}).values():
            yield from classes(hint)


PARTS = sorted(set(classes(Report)), key=lambda kind: kind.__name__)


def test_a_report_is_made_of_several_classes():
    assert {"Report", "Finding", "Failure", "StreamFacts"} <= {kind.__name__ for kind in PARTS}


def found(value, kind):
    """The values of a class that a tree of values holds."""
    if isinstance(value, kind):
        yield value
    if dataclasses.is_dataclass(value) and not isinstance(value, (type, *LOOKED_UP)):
        for declared in dataclasses.fields(value):
            yield from found(getattr(value, declared.name), kind)
    elif isinstance(value, (list, tuple)):
        for one in value:
            yield from found(one, kind)


@pytest.mark.parametrize("part", ["StreamFacts", "Finding", "Failure"])
def test_a_field_of_the_wrong_type_is_named(part):
    builder = StreamBuilder.pv(8)
    builder.drop("X86_PV_VCPU_BASIC")
    report = check(builder.build())
    assert structured(Report, report) is report
    kind = next(kind for kind in PARTS if kind.__name__ == part)
    one = next(found(report, kind))
    name = next(name for name, hint in get_type_hints(kind, localns={"Any": object}).items() if hint in (str, int))
    object.__setattr__(one, name, types)
    with pytest.raises(StructureError, match=rf"{name}: expected a (string|number), found <module 'types'"):
        structured(Report, report)
