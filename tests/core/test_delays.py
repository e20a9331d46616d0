from itertools import pairwise

import pytest

from messaging.core.delays import DELAY_MAX_S, LEVELS, delay_end, delay_key, delay_topology
from messaging.core.topology import Names
from messaging.errors import ConfigurationError
from messaging.transports.memory.routing import topic_matches

NAMES = Names("ns")
TOPOLOGY = delay_topology(NAMES, "orders")
END = "ns.orders.commands"


def way(routing_key: str) -> list[str]:
    """Return the queues that a message passes, in order; each stage must send it to exactly one."""
    exchange, passed = NAMES.delay("orders"), []
    while True:
        [queue] = [
            binding.queue
            for binding in TOPOLOGY.bindings
            if binding.exchange == exchange and topic_matches(binding.routing_key, routing_key)
        ]
        passed.append(queue)
        if queue == END:
            return passed
        [arguments] = [found.arguments for found in TOPOLOGY.queues if found.name == queue]
        exchange = str(arguments["x-dead-letter-exchange"])


def waits_s(queues: list[str]) -> int:
    ttl_ms = {queue.name: queue.arguments["x-message-ttl"] for queue in TOPOLOGY.queues}
    return sum(int(ttl_ms[queue]) for queue in queues[:-1]) // 1000


@pytest.mark.parametrize("delay_s", [*range(70), 1023, 1024, 0xAAAAA, 0x55555, 604_800, DELAY_MAX_S - 1, DELAY_MAX_S])
def test_a_command_waits_for_exactly_its_delay_and_ends_in_the_services_queue(delay_s: int) -> None:
    passed = way(delay_key(delay_s))

    assert waits_s(passed) == delay_s
    assert passed[-1] == delay_end(NAMES, "orders") == END


@pytest.mark.parametrize("delay_s", [5, 0xFFFFF])
def test_no_level_is_passed_twice_and_the_longest_comes_first(delay_s: int) -> None:
    levels = way(delay_key(delay_s))[:-1]

    assert all(first > second for first, second in pairwise(levels))
    assert len(levels) == delay_s.bit_count()


@pytest.mark.parametrize(
    "routing_key",
    [
        "",
        "commands",
        "1.commands",
        delay_key(0).replace("commands", "dead"),
        delay_key(0) + ".more",
        "#",
        "orders.place.v1",
    ],
)
def test_what_is_no_way_never_reaches_the_end(routing_key: str) -> None:
    ends = [binding for binding in TOPOLOGY.bindings if binding.queue == END]

    assert not any(topic_matches(binding.routing_key, routing_key) for binding in ends)


@pytest.mark.parametrize("delay_s", [-1, DELAY_MAX_S + 1])
def test_the_levels_have_an_end_and_the_error_names_what_reaches_further(delay_s: int) -> None:
    with pytest.raises(ConfigurationError, match=r"which reach 1048575 s \(12 days\): give the service a store"):
        delay_key(delay_s)


def test_nothing_can_get_lost_on_the_way() -> None:
    assert len(TOPOLOGY.queues) == LEVELS
    for level, queue in enumerate(TOPOLOGY.queues):
        assert queue.name == f"ns.orders.delay.{level:02}"
        assert queue.arguments == {
            "x-queue-type": "quorum",
            "x-message-ttl": 2**level * 1000,
            "x-dead-letter-exchange": queue.name,
            "x-dead-letter-strategy": "at-least-once",
            "x-overflow": "reject-publish",
            "x-delivery-limit": 100,
        }
    assert {exchange.alternate for exchange in TOPOLOGY.exchanges} == {"ns.orders.undeliverable"}
    assert {exchange.type for exchange in TOPOLOGY.exchanges} == {"topic"}


def test_keys_and_names_fit_the_brokers_bounds() -> None:
    assert len(delay_key(DELAY_MAX_S)) <= 255
    assert max(len(binding.routing_key) for binding in TOPOLOGY.bindings) <= 255
