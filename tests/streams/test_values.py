"""Classes of values behave as the standard library's, and cost nothing before there is a value."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import pickle
from typing import Any, ClassVar

import pytest

from streams import values


@values.dataclass(frozen=True, slots=True)
class Point:
    """A frozen one."""

    x: int
    y: int = 0
    label: str = values.field(default="", compare=False, repr=False)
    kind: ClassVar[str] = "point"


@values.dataclass(frozen=True, slots=True)
class Point3(Point):
    """One that adds to another."""

    z: int = 0


@values.dataclass(slots=True)
class Bag:
    """One that can be changed."""

    held: list[int] = values.field(default_factory=list)
    more: bool = values.field(default=False, kw_only=True)


@values.dataclass(frozen=True, slots=True)
class Nothing:
    """One without fields."""


def standard(name: str, *fields: Any, **asked: Any) -> Any:
    return dataclasses.make_dataclass(name, fields, **asked)


POINT = standard(
    "Point",
    ("x", int),
    ("y", int, 0),
    ("label", str, dataclasses.field(default="", compare=False, repr=False)),
    frozen=True,
    slots=True,
)


@pytest.mark.parametrize("given", [((1,), {}), ((1, 2), {}), ((1,), {"y": 2, "label": "there"})])
def test_a_value_reads_compares_and_prints_as_the_standard_ones(given: tuple[tuple[int, ...], dict[str, Any]]) -> None:
    ours, theirs = Point(*given[0], **given[1]), POINT(*given[0], **given[1])
    assert (ours.x, ours.y, ours.label) == (theirs.x, theirs.y, theirs.label)
    assert repr(ours) == repr(theirs)
    assert (ours == Point(1, 2)) == (theirs == POINT(1, 2))
    assert ours != theirs
    assert hash(ours) == hash(Point(ours.x, ours.y, "elsewhere"))


@pytest.mark.parametrize("given", [((), {}), ((1, 2, "", 4), {}), ((1,), {"q": 2})])
def test_wrong_arguments_are_refused_as_by_the_standard_ones(given: tuple[tuple[int, ...], dict[str, Any]]) -> None:
    with pytest.raises(TypeError) as ours:
        Point(*given[0], **given[1])
    with pytest.raises(TypeError) as theirs:
        POINT(*given[0], **given[1])
    assert str(ours.value).partition("(")[2] == str(theirs.value).partition("(")[2]


def test_a_frozen_value_stays_as_it_is() -> None:
    point: Any = Point(1)
    with pytest.raises(dataclasses.FrozenInstanceError):
        point.x = 2
    with pytest.raises(dataclasses.FrozenInstanceError):
        del point.x


def test_a_value_that_can_be_changed_has_no_hash_and_only_its_fields() -> None:
    bag: Any = Bag()
    bag.held.append(1)
    assert bag == Bag([1]) != Bag()
    with pytest.raises(TypeError, match="unhashable"):
        hash(bag)
    with pytest.raises(AttributeError):
        bag.other = 1


def test_a_default_that_all_would_share_is_refused() -> None:
    with pytest.raises(ValueError, match="default_factory"):
        values.field(default=[])


def test_what_inherits_has_the_fields_of_both() -> None:
    assert Point3(1, 2, "here", 3) == Point3(1, 2, z=3)
    assert Point3(1, 2) != Point(1, 2)
    assert not hasattr(Point3(1), "__dict__")


def test_fields_by_name_only_are_not_taken_in_order() -> None:
    with pytest.raises(TypeError):
        Bag([], True)  # type: ignore[misc]
    assert Bag(more=True).more
    assert Bag.__match_args__ == ("held",)


def test_without_fields_all_are_the_same() -> None:
    assert Nothing() == Nothing()
    assert repr(Nothing()) == "Nothing()"


def test_the_standard_functions_know_them() -> None:
    point = Point(1, 2, "here")
    assert dataclasses.is_dataclass(Point)
    assert dataclasses.asdict(point) == {"x": 1, "y": 2, "label": "here"}
    assert dataclasses.replace(point, y=3) == values.replace(point, y=3) == Point(1, 3)
    assert [field.name for field in dataclasses.fields(Point3)] == ["x", "y", "label", "z"]
    assert [field.kw_only for field in dataclasses.fields(Bag)] == [False, True]


def test_the_signature_is_that_of_the_fields() -> None:
    assert str(inspect.signature(Point)) == "(x: 'int', y: 'int' = 0, label: 'str' = '') -> 'None'"


@pytest.mark.parametrize("value", [Point(1, 2, "here"), Bag([1], more=True), Nothing()])
def test_copies_are_equal(value: Any) -> None:
    assert copy.copy(value) == copy.deepcopy(value) == pickle.loads(pickle.dumps(value)) == value


def test_a_pattern_matches_the_fields() -> None:
    match Point(1, 2):
        case Point(x, 2):
            assert x == 1
        case _:
            pytest.fail("it is that point")
