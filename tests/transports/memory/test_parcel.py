import pytest

from messaging.core.topology import Argument
from messaging.errors import TopologyConflictError
from messaging.transports.base import Death
from messaging.transports.memory.parcel import Limits, Parcel

PARCEL = Parcel(body=b"x", exchange="e", routing_key="k", message_id="m", headers={"x-attempt": 2}, expiration_ms=5)


def test_dead_letter_is_the_same_message_for_another_exchange() -> None:
    letter = PARCEL.buried("q", "expired", exchange="dlx", routing_key=None)

    assert (letter.body, letter.message_id, letter.headers) == (b"x", "m", {"x-attempt": 2})
    assert (letter.exchange, letter.routing_key, letter.expiration_ms) == ("dlx", "k", None)
    assert letter.deaths == (Death(queue="q", reason="expired", count=1),)


def test_dead_letter_may_take_a_new_routing_key() -> None:
    assert PARCEL.buried("q", "maxlen", exchange="dlx", routing_key="other").routing_key == "other"


def test_repeated_death_is_counted_and_comes_first() -> None:
    letter = PARCEL
    for queue, reason in [("q", "expired"), ("r", "maxlen"), ("q", "expired"), ("q", "rejected")]:
        letter = letter.buried(queue, reason, exchange="dlx", routing_key=None)

    assert letter.deaths == (
        Death(queue="q", reason="rejected", count=1),
        Death(queue="q", reason="expired", count=2),
        Death(queue="r", reason="maxlen", count=1),
    )


@pytest.mark.parametrize(
    ("deaths", "is_cycle"),
    [
        ([], False),
        ([("other", "expired")], False),
        ([("q", "expired")], True),
        ([("q", "rejected")], False),
        ([("q", "expired"), ("other", "expired")], True),
        ([("q", "expired"), ("other", "rejected")], False),
        ([("other", "rejected"), ("q", "expired")], True),
    ],
)
def test_round_without_a_rejection_is_a_cycle(deaths: list[tuple[str, str]], is_cycle: bool) -> None:
    letter = PARCEL
    for queue, reason in deaths:
        letter = letter.buried(queue, reason, exchange="dlx", routing_key=None)

    assert letter.is_cycle("q") is is_cycle


def test_arguments_are_read() -> None:
    arguments: dict[str, Argument] = {
        "x-queue-type": "quorum",
        "x-delivery-limit": 100,
        "x-message-ttl": 1_000,
        "x-expires": 60_000,
        "x-max-length": 10,
        "x-max-length-bytes": 1_024,
        "x-overflow": "reject-publish",
        "x-dead-letter-exchange": "dlx",
        "x-dead-letter-routing-key": "k",
        "x-dead-letter-strategy": "at-least-once",
        "x-single-active-consumer": True,
        "x-unknown": "ignored",
    }

    assert Limits.of("q", arguments) == Limits(
        is_quorum=True,
        delivery_limit=100,
        ttl_ms=1_000,
        expires_ms=60_000,
        length_max=10,
        bytes_max=1_024,
        is_rejecting=True,
        dead_letter_exchange="dlx",
        dead_letter_key="k",
        is_at_least_once=True,
        is_single_active=True,
    )


def test_plain_queue_has_no_limits() -> None:
    assert Limits.of("q", {}) == Limits(
        is_quorum=False,
        delivery_limit=None,
        ttl_ms=None,
        expires_ms=None,
        length_max=None,
        bytes_max=None,
        is_rejecting=False,
        dead_letter_exchange=None,
        dead_letter_key=None,
        is_at_least_once=False,
        is_single_active=False,
    )


def test_classic_queue_knows_no_delivery_limit() -> None:
    assert Limits.of("q", {"x-delivery-limit": 3}).delivery_limit is None


@pytest.mark.parametrize("lacking", ["x-queue-type", "x-overflow", "x-dead-letter-strategy"])
def test_at_least_once_needs_quorum_strategy_and_rejecting(lacking: str) -> None:
    arguments: dict[str, Argument] = {
        "x-queue-type": "quorum",
        "x-overflow": "reject-publish",
        "x-dead-letter-strategy": "at-least-once",
    }
    del arguments[lacking]

    assert not Limits.of("q", arguments).is_at_least_once


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("x-queue-type", "heap"),
        ("x-overflow", "drop-tail"),
        ("x-dead-letter-strategy", "twice"),
        ("x-single-active-consumer", "yes"),
        ("x-message-ttl", -1),
        ("x-message-ttl", "100"),
        ("x-message-ttl", True),
        ("x-expires", 0),
        ("x-dead-letter-exchange", 5),
    ],
)
def test_impossible_argument_is_refused_by_name(name: str, value: Argument) -> None:
    with pytest.raises(TopologyConflictError, match=rf"'q'.*{name}.*{value!r}"):
        Limits.of("q", {name: value})


def test_unlimited_deliveries_are_refused_because_versions_disagree_about_them() -> None:
    with pytest.raises(TopologyConflictError, match="x-delivery-limit"):
        Limits.of("q", {"x-queue-type": "quorum", "x-delivery-limit": -1})
