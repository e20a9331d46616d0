"""What a value is: a dataclass with slots, equality, a hash and a repr that keeps silent where told."""

from dataclasses import field, fields, replace

import pytest

from messaging.core.values import value


@value
class Point:
    """A point."""

    x: int
    y: int = 0
    secret: bytes = field(default=b"", repr=False)


def test_equal_values_are_equal_and_hash_alike() -> None:
    assert Point(1, 2) == Point(1, 2)
    assert hash(Point(1, 2)) == hash(Point(1, 2))
    assert Point(1, 2) != Point(2, 1)


def test_a_copy_differs_in_what_was_replaced() -> None:
    assert replace(Point(1, 2), y=3) == Point(1, 3)


def test_fields_marked_silent_are_not_shown() -> None:
    assert repr(Point(1, 2, b"hush")) == "Point(x=1, y=2)"


def test_there_is_no_room_for_other_attributes() -> None:
    with pytest.raises(AttributeError):
        Point(1).z = 3  # type: ignore[attr-defined]
    assert [one.name for one in fields(Point)] == ["x", "y", "secret"]


def test_the_type_checker_refuses_assignments() -> None:
    point = Point(1)

    # An ignore that is not needed is an error of the type checker: this line is the test.
    point.x = 2  # type: ignore[misc]

    assert point.x == 2
