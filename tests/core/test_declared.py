"""Values of what exists at a broker."""

import pytest

from messaging.core.declared import SINGLE_ACTIVE, Binding, Declares, Exchange, Queue, Topology


def test_sum_keeps_the_order_and_each_thing_once() -> None:
    first = Topology(exchanges=(Exchange(name="e", type="topic"),), queues=(Queue(name="a"), Queue(name="b")))
    second = Topology(
        queues=(Queue(name="b"), Queue(name="c")), bindings=(Binding(exchange="e", queue="c", routing_key="k"),)
    )

    total = first + second

    assert [queue.name for queue in total.queues] == ["a", "b", "c"]
    assert total.exchanges == first.exchanges
    assert total.bindings == second.bindings


def test_bindings_can_be_left_out() -> None:
    first, second = (Binding(exchange="e", queue="q", routing_key=key) for key in "ab")
    topology = Topology(queues=(Queue(name="q"),), bindings=(first, second))

    assert topology.without({first}) == Topology(queues=(Queue(name="q"),), bindings=(second,))


@pytest.mark.parametrize(
    ("arguments", "expected"), [({SINGLE_ACTIVE: True}, True), ({SINGLE_ACTIVE: False}, False), ({}, False)]
)
def test_queue_knows_whether_one_consumer_is_active(arguments: dict[str, str | int], expected: bool) -> None:
    assert Queue(name="q", arguments=arguments).is_single_active is expected


@pytest.mark.parametrize(
    ("declares", "made"),
    [
        (Declares.ALL, ["shared", "own", "work", "replies"]),
        (Declares.OWN, ["own", "work", "replies"]),
        (Declares.REPLIES, ["replies"]),
    ],
)
def test_who_makes_what(declares: Declares, made: list[str]) -> None:
    things: list[Exchange | Queue] = [
        Exchange(name="shared", type="topic", is_shared=True),
        Exchange(name="own", type="direct"),
        Queue(name="work"),
        Queue(name="replies", is_passing=True),
    ]

    assert [thing.name for thing in things if declares.makes(thing)] == made
