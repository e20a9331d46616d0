"""Dead letters: which are selected, how they group, and what a pass takes."""

from dataclasses import replace
from uuid import UUID

import pytest

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


def test_groups_keep_the_words_of_the_latest_in_whatever_order_they_come() -> None:
    letters = [
        letter("a", reason="new", age_s=1),
        letter("b", reason="old", age_s=9),
        letter("c", reason="mid", age_s=5),
    ]

    [found] = group(letters)

    assert (found.reason, found.count) == ("new", 3)
    assert (found.first_seen_ms, found.last_seen_ms) == (NOW_MS - 9_000, NOW_MS - 1_000)


def test_what_is_not_selected_is_kept() -> None:
    assert plan(letter("a", error="other"), Selection(error="ValueError"), now_ms=NOW_MS) is Act.KEEP
    assert plan(letter("a"), Selection(error="ValueError"), now_ms=NOW_MS) is Act.TAKE


@pytest.mark.parametrize(("replaying", "act"), [(True, Act.KEEP), (False, Act.TAKE)])
def test_what_cannot_be_replayed_is_kept_by_a_replay_and_taken_by_a_discard(replaying: bool, act: Act) -> None:
    assert plan(letter("a", is_replayable=False), Selection(), now_ms=NOW_MS, replaying=replaying) is act
    assert plan(letter("a"), Selection(), now_ms=NOW_MS, replaying=replaying) is Act.TAKE


def test_a_report_keeps_letters_without_their_content() -> None:
    found = replace(letter("a"), original=b"sealed", payload={"card": 1}).without_content()

    assert (found.id, found.original, found.payload) == ("a", b"", None)
