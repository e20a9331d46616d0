"""Dead letters: which are selected, how they group, and what a pass takes."""

from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from messaging.core.dead_letter import Act, DeadLetter, Group, Selection, group, plan
from messaging.core.envelope import Kind
from messaging.core.fault import Fault

NOW_MS = 1_000_000_000
MESSAGE_ID = UUID("01890000-0000-7000-8000-000000000001")


def letter(
    id: str = "abcdef",
    *,
    error: str = "ValueError",
    fingerprint: str = "f1",
    reason: str = "bad",
    name: str = "orders.place_order",
    sender: str = "users",
    age_s: float = 60.0,
    message_id: UUID | None = MESSAGE_ID,
    is_replayable: bool = True,
) -> DeadLetter:
    return DeadLetter(
        id=id,
        service="orders",
        is_verified=True,
        fault=Fault(error=error, reason=reason, fingerprint=fingerprint),
        message_name=name,
        message_id=message_id,
        kind=Kind.COMMAND,
        sender=sender,
        died_at_ms=NOW_MS - round(age_s * 1000),
        is_replayable=is_replayable,
    )


@pytest.mark.parametrize(
    ("selection", "expected"),
    [
        (Selection(), True),
        (Selection(name="orders.place_order"), True),
        (Selection(name="orders.place"), False),
        (Selection(error="ValueError"), True),
        (Selection(error="value"), False),
        (Selection(fingerprint="f1"), True),
        (Selection(fingerprint="f"), False),
        (Selection(sender="users"), True),
        (Selection(sender="ops:alice"), False),
        (Selection(older_than_s=59), True),
        (Selection(older_than_s=60), True),
        (Selection(older_than_s=61), False),
        (Selection(younger_than_s=61), True),
        (Selection(younger_than_s=60), True),
        (Selection(younger_than_s=59), False),
        (Selection(ids=frozenset({"abc"})), True),
        (Selection(ids=frozenset({"abcdef"})), True),
        (Selection(ids=frozenset({"bcd"})), False),
        (Selection(ids=frozenset({"abcdefg"})), False),
        (Selection(ids=frozenset({"x", "ab"})), True),
        (Selection(ids=frozenset({"01890000-0000"})), True),
        (Selection(ids=frozenset({"018900000000"})), True),
        (Selection(ids=frozenset({""})), False),
        (Selection(error="ValueError", sender="users", ids=frozenset({"ab"}), older_than_s=1), True),
        (Selection(error="ValueError", sender="billing"), False),
        (Selection(error="ValueError", ids=frozenset({"x"})), False),
    ],
)
def test_a_letter_is_selected_when_all_conditions_hold(selection: Selection, expected: bool) -> None:
    assert selection.matches(letter(), now_ms=NOW_MS) is expected


def test_a_letter_without_message_id_is_selected_by_its_own() -> None:
    unverified = letter(message_id=None)

    assert Selection(ids=frozenset({"abc"})).matches(unverified, now_ms=NOW_MS)
    assert not Selection(ids=frozenset({"0189"})).matches(unverified, now_ms=NOW_MS)


def test_the_content_is_not_in_the_repr() -> None:
    found = DeadLetter(
        id="a",
        service="orders",
        is_verified=True,
        fault=Fault(error="E", reason="r"),
        original=b"sealed",
        payload="clear",
    )

    assert "clear" not in repr(found)
    assert "sealed" not in repr(found)


def test_letters_that_failed_alike_are_one_group() -> None:
    letters = [
        letter("a", fingerprint="f1", reason="old", age_s=90, name="orders.b"),
        letter("b", fingerprint="f2"),
        letter("c", fingerprint="f1", reason="new", age_s=30, name="orders.a"),
    ]

    assert group(letters)[0] == Group(
        fingerprint="f1",
        error="ValueError",
        reason="new",
        message_names=("orders.a", "orders.b"),
        count=2,
        first_seen_ms=NOW_MS - 90_000,
        last_seen_ms=NOW_MS - 30_000,
    )


def test_groups_come_largest_first_then_by_fingerprint() -> None:
    letters = [letter(fingerprint=mark) for mark in ("c", "b", "b", "a")]

    assert [(found.fingerprint, found.count) for found in group(letters)] == [("b", 2), ("a", 1), ("c", 1)]
    assert group([]) == []


def test_without_a_fingerprint_the_error_groups() -> None:
    letters = [letter(fingerprint="", error="expired"), letter(fingerprint="", error="unverified")]

    assert {found.fingerprint for found in group(letters)} == {"expired", "unverified"}


def test_a_pass_takes_the_oldest_up_to_the_limit() -> None:
    letters = [
        letter("a", age_s=10),
        letter("b", age_s=30),
        letter("c", age_s=20),
        letter("d", age_s=99, error="other"),
    ]

    acts = plan(letters, Selection(error="ValueError"), now_ms=NOW_MS, limit=2)

    assert acts == [Act.KEEP, Act.TAKE, Act.TAKE, Act.KEEP]


@pytest.mark.parametrize(
    ("limit", "expected"), [(None, [Act.TAKE, Act.TAKE]), (0, [Act.KEEP, Act.KEEP]), (5, [Act.TAKE, Act.TAKE])]
)
def test_the_limit_may_be_none_or_beyond(limit: int | None, expected: list[Act]) -> None:
    assert plan([letter("a"), letter("b")], Selection(), now_ms=NOW_MS, limit=limit) == expected


def test_what_cannot_be_replayed_is_kept_by_a_replay_and_taken_by_a_discard() -> None:
    letters = [letter("a", is_replayable=False), letter("b")]

    assert plan(letters, Selection(), now_ms=NOW_MS) == [Act.KEEP, Act.TAKE]
    assert plan(letters, Selection(), now_ms=NOW_MS, replaying=False) == [Act.TAKE, Act.TAKE]


@given(
    st.lists(st.tuples(st.sampled_from("ef"), st.integers(0, 100), st.booleans()), max_size=12),
    st.none() | st.integers(0, 12),
)
def test_a_plan_takes_only_what_is_selected_and_the_oldest_of_it(
    rows: list[tuple[str, int, bool]], limit: int | None
) -> None:
    letters = [letter(str(n), error=error, age_s=age, is_replayable=ok) for n, (error, age, ok) in enumerate(rows)]
    wanted = [found for found in letters if found.fault.error == "e" and found.is_replayable]

    acts = plan(letters, Selection(error="e"), now_ms=NOW_MS, limit=limit)

    taken = [found for found, act in zip(letters, acts, strict=True) if act is Act.TAKE]
    left = [found for found in wanted if found not in taken]
    assert len(taken) == (len(wanted) if limit is None else min(limit, len(wanted)))
    assert all(found in wanted for found in taken)
    assert all(one.died_at_ms <= other.died_at_ms for one in taken for other in left)
