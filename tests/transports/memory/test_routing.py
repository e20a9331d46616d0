import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from messaging.core.topology import Exchange
from messaging.transports.memory.routing import MemoryExchange, topic_matches

WORDS = st.lists(st.sampled_from(["a", "b", "", "x1"]), max_size=6)
PATTERN_WORDS = st.lists(st.sampled_from(["a", "b", "", "*", "#"]), max_size=6)


def says_the_definition(pattern: list[str], key: list[str]) -> bool:
    """The rule as the AMQP specification words it, by trying everything."""
    if not pattern:
        return not key
    if pattern[0] == "#":
        return any(says_the_definition(pattern[1:], key[n:]) for n in range(len(key) + 1))
    return bool(key) and pattern[0] in {"*", key[0]} and says_the_definition(pattern[1:], key[1:])


@given(PATTERN_WORDS, WORDS)
def test_topic_matching_is_what_the_specification_says(pattern: list[str], key: list[str]) -> None:
    # One empty word cannot be spelled: "" has no word at all.
    pattern = [] if pattern == [""] else pattern
    key = [] if key == [""] else key

    assert topic_matches(".".join(pattern), ".".join(key)) == says_the_definition(pattern, key)


@pytest.mark.parametrize(
    ("pattern", "key", "matches"),
    [("", "", True), ("#", "", True), ("*", "", False), ("*.*", ".", True), ("a.*", "a.", True), ("a", "a.", False)],
)
def test_empty_words_count_between_dots_only(pattern: str, key: str, matches: bool) -> None:
    assert topic_matches(pattern, key) is matches


def test_hostile_pattern_stays_cheap() -> None:
    pattern, key = ".".join(["#", "a"] * 60), ".".join(["a"] * 120 + ["b"])
    started_s = time.process_time()

    matches = topic_matches(pattern, key)

    assert not matches
    assert time.process_time() - started_s < 1.0


def test_queue_is_reached_once_in_the_order_of_binding() -> None:
    exchange = MemoryExchange(Exchange(name="e", type="topic"))
    for queue, pattern in [("second", "#"), ("first", "a.#"), ("second", "a.*"), ("second", "#")]:
        exchange.bind(queue, pattern)

    assert exchange.reached_by("a.b") == ("second", "first")


def test_new_binding_counts_for_keys_seen_before() -> None:
    exchange = MemoryExchange(Exchange(name="e", type="direct"))
    before = exchange.reached_by("k")

    exchange.bind("q", "k")

    assert (before, exchange.reached_by("k")) == ((), ("q",))


def test_forgotten_queue_is_reached_no_more() -> None:
    exchange = MemoryExchange(Exchange(name="e", type="fanout"))
    exchange.bind("gone", "")
    exchange.bind("kept", "")
    exchange.reached_by("k")

    exchange.forget("gone")

    assert exchange.reached_by("k") == ("kept",)


def test_hostile_keys_do_not_fill_the_memory() -> None:
    exchange = MemoryExchange(Exchange(name="e", type="topic"))
    exchange.bind("q", "a.#")

    for number in range(20_000):
        exchange.reached_by(f"a.{number}")

    assert len(exchange._remembered) <= 4_096
    assert exchange.reached_by("a.1") == ("q",)


def test_unbound_key_reaches_nothing_more() -> None:
    exchange = MemoryExchange(Exchange(name="e", type="topic"))
    exchange.bind("q", "a.*")
    exchange.bind("q", "b")
    assert exchange.reached_by("a.1") == ("q",)

    exchange.unbind("q", "a.*")
    exchange.unbind("q", "never bound")

    assert (exchange.reached_by("a.1"), exchange.reached_by("b")) == ((), ("q",))
