"""Flame graphs: boxes as wide as their share, one upon the other, and never a huge file."""

import xml.etree.ElementTree as ET
from random import Random

import pytest

from benchmarks.flame_picture import SIZE_MAX_BYTES, draw_flame
from benchmarks.flame_stacks import Frame, Stack

SVG = "{http://www.w3.org/2000/svg}"
BELOW, LEFT, RIGHT = Frame("run", "asyncio.events"), Frame("a<b>", "messaging.core.ids"), Frame("z", "msgpack")


def boxes(picture: str) -> dict[str, tuple[float, float, float]]:
    """Return left edge, upper edge and width of each box by its title."""
    found = {}
    for box in ET.fromstring(picture).iter(f"{SVG}rect"):  # noqa: S314 - drawn here
        title = box.find(f"{SVG}title")
        if title is not None:
            x, y, width = (float(box.get(name, "")) for name in ("x", "y", "width"))
            found[str(title.text)] = (x, y, width)
    return found


def test_a_box_is_as_wide_as_its_share_and_stands_on_its_caller() -> None:
    picture = draw_flame([Stack((BELOW, RIGHT), 1), Stack((BELOW, LEFT), 3)], title="a & b")

    found = boxes(picture)
    base, left, right = (found[f"{name}: {share}"] for name, share in (
        ("run (asyncio.events)", "100.0%"), ("a<b> (messaging.core.ids)", "75.0%"), ("z (msgpack)", "25.0%"),
    ))  # fmt: skip
    assert left[1] == right[1] < base[1]
    assert (left[0], left[0] + left[2]) == pytest.approx((base[0], right[0]), abs=0.2)
    assert left[2] == pytest.approx(3 * right[2], abs=0.3)
    assert "a &amp; b" in picture


def test_what_is_too_narrow_to_see_is_left_out() -> None:
    found = boxes(draw_flame([Stack((BELOW, LEFT), 1), Stack((BELOW, RIGHT), 100_000)], title="t"))

    assert len(found) == 2


def test_a_picture_of_very_many_stacks_stays_small() -> None:
    random = Random(7)  # noqa: S311 - the same picture each time
    stacks = [
        Stack(tuple(Frame(f"function_{random.randrange(9)}", f"messaging.core.m{depth}") for depth in range(12)), 1)
        for _ in range(4_000)
    ]

    picture = draw_flame(stacks, title="t")

    assert len(picture.encode()) <= SIZE_MAX_BYTES
    assert picture.count("<rect") > 100


def test_nothing_at_all_is_an_empty_picture() -> None:
    assert boxes(draw_flame([], title="t")) == {}
