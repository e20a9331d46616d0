"""Lanes: serial within, side by side across, the oldest first."""

from hypothesis import given
from hypothesis import strategies as st

from messaging.core.lanes import Lanes, Place


def begun(lanes: Lanes[str]) -> list[str]:
    return [place.item for place in places(lanes)]


def places(lanes: Lanes[str]) -> list[Place[str]]:
    found = []
    while (place := lanes.next()) is not None:
        found.append(place)
    return found


def filled(*items: str, width: int = 10) -> Lanes[str]:
    """Return lanes with items such as `a1`: the first of lane a."""
    lanes: Lanes[str] = Lanes(width)
    for item in items:
        lanes.put(ord(item[0]), item)
    return lanes


def test_lanes_run_side_by_side_and_each_in_its_order() -> None:
    lanes = filled("a1", "a2", "b1", "a3")

    first = places(lanes)
    assert [place.item for place in first] == ["a1", "b1"]
    lanes.done(first[0])

    assert begun(lanes) == ["a2"]


def test_no_more_than_the_width_run_and_the_oldest_goes_first() -> None:
    lanes = filled("a1", "b1", "a2", "c1", width=2)
    first, second = places(lanes)

    lanes.done(first)

    # a2 came before c1.
    assert begun(lanes) == ["a2"]
    lanes.done(second)
    assert begun(lanes) == ["c1"]
    assert (lanes.running, lanes.held) == (2, 2)


def test_one_at_rest_holds_its_lane_but_no_room() -> None:
    lanes = filled("a1", "a2", "b1", width=1)
    (first,) = places(lanes)

    lanes.rest(first)

    assert begun(lanes) == ["b1"]
    assert (lanes.running, lanes.held) == (1, 3)
    lanes.resume(first)
    assert lanes.running == 2
    lanes.done(first)
    assert begun(lanes) == []


def test_one_may_end_at_rest() -> None:
    lanes = filled("a1", "a2")
    (first,) = places(lanes)
    lanes.rest(first)

    lanes.done(first)

    assert begun(lanes) == ["a2"]
    assert lanes.running == 1


def test_while_a_suspect_is_held_one_runs_at_a_time_in_the_order_of_arrival() -> None:
    lanes = filled("a1", "b1")
    lanes.put(ord("c"), "c1", is_suspect=True)
    lanes.put(ord("d"), "d1")
    lanes.put(ord("e"), "e1")

    ran = []
    for _ in range(3):
        (place,) = places(lanes)
        ran.append(place.item)
        lanes.done(place)

    assert ran == ["a1", "b1", "c1"]
    assert begun(lanes) == ["d1", "e1"]


def test_what_waits_is_forgotten_when_it_is_lost_and_what_runs_keeps_its_lane() -> None:
    lanes = filled("a1", "a2", "b1")
    lanes.put(ord("c"), "c1", is_suspect=True)
    (running,) = places(lanes)
    assert running.item == "a1"

    lanes.lose()

    assert (lanes.running, lanes.held) == (1, 1)
    lanes.put(ord("a"), "a1 again")
    lanes.put(ord("b"), "b1 again")
    assert begun(lanes) == ["b1 again"]
    lanes.done(running)
    assert begun(lanes) == ["a1 again"]


def test_what_has_no_lane_has_one_together() -> None:
    lanes: Lanes[str] = Lanes(10)
    lanes.put(None, "x")
    lanes.put(None, "y")

    assert begun(lanes) == ["x"]


@given(
    arrivals=st.lists(st.tuples(st.integers(0, 3), st.booleans()), max_size=30),
    choices=st.lists(st.integers(0, 100), min_size=60, max_size=60),
    width=st.integers(1, 4),
)
def test_whatever_ends_when_each_lane_begins_in_order_and_everything_ends(
    arrivals: list[tuple[int, bool]], choices: list[int], width: int
) -> None:
    lanes: Lanes[int] = Lanes(width)
    for number, (lane, is_suspect) in enumerate(arrivals):
        lanes.put(lane, number, is_suspect=is_suspect)
    order: dict[int | None, list[int]] = {}
    under_way: list[Place[int]] = []

    for choice in choices:
        while (place := lanes.next()) is not None:
            order.setdefault(place.lane, []).append(place.item)
            under_way.append(place)
        assert len({place.lane for place in under_way}) == len(under_way) == lanes.running <= width
        if under_way:
            lanes.done(under_way.pop(choice % len(under_way)))

    assert lanes.held == 0
    for begun_lane, items in order.items():
        assert items == [number for number, (of, _) in enumerate(arrivals) if of == begun_lane]
