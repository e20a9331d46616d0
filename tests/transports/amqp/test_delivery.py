from collections.abc import Callable
from typing import Any

import pytest
from aiormq.abc import DeliveredMessage
from pamqp.commands import Basic
from pamqp.header import ContentHeader

from messaging.core.sealed import Label, Route
from messaging.transports.amqp.arrival import Arrival, Message, Received
from messaging.transports.amqp.delivery import AmqpDelivery
from messaging.transports.amqp.settlements import How
from messaging.transports.base import Death

Reads = Callable[[bytes, ContentHeader], Message]
ELSEWHERE = Route(exchange="elsewhere", routing_key="k")


class FakeOutlet:
    """Keeps what was published."""

    def __init__(self) -> None:
        self.published: list[tuple[bytes, Route, Label]] = []

    async def forward(self, body: bytes, route: Route, label: Label, *, timeout_s: float) -> None:
        assert timeout_s == 5.0
        self.published.append((body, route, label))

    def sample(self, body: bytes, route: Route, label: Label) -> None:
        self.published.append((body, route, label))


def received(body: bytes, header: ContentHeader) -> Message:
    """Return a message as aiormq reads it."""
    delivery = Basic.Deliver("tag", 3, True, "ex", "key")
    return Received(DeliveredMessage(delivery=delivery, header=header, body=body, channel=None))  # type: ignore[arg-type]


def arrived(body: bytes, header: ContentHeader) -> Message:
    """Return a message as the fast channel reads it."""
    return Arrival(3, True, ("ex", "key"), header.marshal(), body)


class Arrived:
    """A delivery with what it did."""

    def __init__(self, body: bytes = b"body", *, read: Reads = arrived, **properties: Any) -> None:
        self.outlet = FakeOutlet()
        self.settled: list[tuple[int, How]] = []
        message = read(body, ContentHeader(properties=Basic.Properties(**properties), body_size=len(body)))
        self.delivery = AmqpDelivery(message, "queue", lambda tag, how: self.settled.append((tag, how)), self.outlet)


@pytest.mark.parametrize("read", [received, arrived])
def test_reads_what_came(read: Reads) -> None:
    delivery = Arrived(read=read, message_id="id", message_type="orders.place_order/1").delivery

    assert (delivery.body, delivery.queue, delivery.exchange, delivery.routing_key) == (b"body", "queue", "ex", "key")
    assert (delivery.message_id, delivery.type, delivery.redelivered) == ("id", "orders.place_order/1", True)
    assert (delivery.attempt, delivery.first_failed_ms, delivery.delivery_count, delivery.deaths) == (1, None, 0, ())


@pytest.mark.parametrize("claim", [0, 1001, -1, True, "2", 2.0, None, [2], {"a": 2}], ids=repr)
@pytest.mark.parametrize("read", [received, arrived])
def test_attempt_that_is_no_number_of_attempts_is_the_first(claim: object, read: Reads) -> None:
    assert Arrived(read=read, headers={"x-attempt": claim}).delivery.attempt == 1


@pytest.mark.parametrize("claim", [1, 2, 1000])
@pytest.mark.parametrize("read", [received, arrived])
def test_attempt_within_bounds_is_believed(claim: int, read: Reads) -> None:
    assert Arrived(read=read, headers={"x-attempt": claim}).delivery.attempt == claim


@pytest.mark.parametrize("claim", [True, -3, "7", None], ids=repr)
def test_count_that_is_no_number_is_zero(claim: object) -> None:
    assert Arrived(headers={"x-delivery-count": claim}).delivery.delivery_count == 0


@pytest.mark.parametrize("claim", ["text", 5, {"queue": "q"}, [5, "x", None]], ids=repr)
def test_deaths_that_are_no_list_of_tables_are_none(claim: object) -> None:
    assert Arrived(headers={"x-death": claim}).delivery.deaths == ()


def test_deaths_are_read_leniently() -> None:
    entries = [{"queue": "q", "reason": "expired", "count": 2}, {"queue": 5, "count": "many"}]

    deaths = Arrived(headers={"x-death": entries}).delivery.deaths

    assert deaths == (Death(queue="q", reason="expired", count=2), Death(queue="", reason="", count=0))


@pytest.mark.parametrize(
    ("verb", "how"), [("ack", How.ACK), ("reject", How.REJECT), ("give_back", How.GIVE_BACK)], ids=str
)
def test_settles_once_whatever_follows(verb: str, how: How) -> None:
    arrived = Arrived()

    getattr(arrived.delivery, verb)()
    arrived.delivery.ack()
    arrived.delivery.reject()

    assert arrived.settled == [(3, how)]


async def test_forwards_the_same_bytes_with_fresh_headers() -> None:
    arrived = Arrived(message_id="id", message_type="t/1", headers={"x-death": [], "x-attempt": 4, "CC": ["q"]})

    await arrived.delivery.forward(ELSEWHERE, attempt=5, first_failed_ms=7, timeout_s=5.0)

    label = Label(message_id="id", type="t/1", attempt=5, first_failed_ms=7)
    assert arrived.outlet.published == [(b"body", ELSEWHERE, label)]
    assert arrived.settled == []


def test_samples_the_beginning() -> None:
    arrived = Arrived(body=b"0123456789")

    arrived.delivery.sample(ELSEWHERE, limit_bytes=4)

    assert arrived.outlet.published == [(b"0123", ELSEWHERE, Label(message_id="", type=""))]
