"""The topology as data: every name, argument and binding, as a broker would be asked for them."""

from dataclasses import replace
from typing import Any

import pytest

from messaging.core.envelope import Kind
from messaging.core.topology import (
    SINGLE_ACTIVE,
    Binding,
    Declares,
    Exchange,
    Names,
    Queue,
    Subscriptions,
    Topology,
    dead_routing_key,
    is_way_back,
    routing_key,
    slot_routing_key,
)
from messaging.errors import ConfigurationError

NAMES = Names("ns")
EVERYTHING = Subscriptions(
    commands=frozenset({("orders.place", 1), ("orders.place", 2), ("orders.cancel", 1)}),
    requests=frozenset({("orders.get", 1)}),
    events=frozenset({("users.registered", 1)}),
    faults=True,
    rungs_ms=(1_000, 5_000),
)
TOPICS = {"ns.commands", "ns.requests", "ns.events", "ns.dead", "ns.replies"}


def queues(topology: Topology) -> dict[str, dict[str, Any]]:
    return {queue.name: dict(queue.arguments) for queue in topology.queues}


def bindings(topology: Topology, queue: str) -> set[tuple[str, str]]:
    return {(binding.exchange, binding.routing_key) for binding in topology.bindings if binding.queue == queue}


@pytest.fixture
def topology() -> Topology:
    return NAMES.of_service("orders", EVERYTHING)


@pytest.mark.parametrize("namespace", ["", "Ns", "a.b", "ns\n", "ops", "amq", "1ns", "n" * 33])
def test_a_namespace_is_named_like_a_service(namespace: str) -> None:
    with pytest.raises(ConfigurationError, match="cannot be a namespace"):
        Names(namespace)


@pytest.mark.parametrize(
    ("kind", "exchange"),
    [
        (Kind.COMMAND, "ns.commands"),
        (Kind.EVENT, "ns.events"),
        (Kind.REQUEST, "ns.requests"),
        (Kind.REPLY, "ns.replies"),
        (Kind.FAULT, "ns.dead"),
        (Kind.REPLAY, "ns.orders.return"),
    ],
)
def test_each_kind_is_published_to_its_exchange(kind: Kind, exchange: str) -> None:
    assert NAMES.exchange_of(kind, "orders") == exchange


def test_routing_keys_are_names_with_versions() -> None:
    assert routing_key("orders.place", 2) == "orders.place.v2"
    assert dead_routing_key("orders", "users") == "dead.orders.users"
    assert dead_routing_key("orders", None) == "dead.orders"


def test_names_of_one_service_begin_with_namespace_and_service() -> None:
    assert NAMES.queue("orders", "dead") == "ns.orders.dead"
    assert NAMES.rung("orders", 1_000) == "ns.orders.retry.1000"
    assert NAMES.reply_queue("orders", "0123456789abcdef") == "ns.orders.replies.0123456789abcdef"
    assert NAMES.undeliverable_exchange("orders") == "ns.orders.undeliverable"
    assert NAMES.lock(NAMES.queue("orders", "dead")) == "ns.orders.dead.lock"


def test_the_shared_exchanges_are_topics() -> None:
    shared = NAMES.shared()

    assert {exchange.name for exchange in shared.exchanges} == TOPICS
    assert {exchange.type for exchange in shared.exchanges} == {"topic"}
    assert (shared.queues, shared.bindings) == ((), ())


def test_a_client_needs_the_shared_exchanges_only() -> None:
    assert Subscriptions(rungs_ms=(1_000,)).is_empty
    assert NAMES.of_service("shell", Subscriptions()) == NAMES.shared()


@pytest.mark.parametrize(
    "subscriptions",
    [
        Subscriptions(commands=frozenset({("a.b", 1)})),
        Subscriptions(requests=frozenset({("a.b", 1)})),
        Subscriptions(events=frozenset({("a.b", 1)})),
        Subscriptions(faults=True),
    ],
)
def test_who_handles_anything_is_no_client(subscriptions: Subscriptions) -> None:
    assert not subscriptions.is_empty


def test_a_service_has_the_queues_of_what_it_handles(topology: Topology) -> None:
    parts = ("commands", "requests", "events", "faults", "dead", "refused", "quarantine", "retry.1000", "retry.5000")

    assert queues(topology).keys() == {f"ns.orders.{part}" for part in parts}


@pytest.mark.parametrize(
    ("subscriptions", "parts"),
    [
        (Subscriptions(requests=frozenset({("orders.get", 1)})), {"requests"}),
        (Subscriptions(events=frozenset({("users.registered", 1)})), {"events"}),
        (Subscriptions(faults=True), {"faults"}),
    ],
)
def test_what_it_does_not_handle_has_no_queue(subscriptions: Subscriptions, parts: set[str]) -> None:
    found = queues(NAMES.of_service("orders", subscriptions))

    assert found.keys() == {f"ns.orders.{part}" for part in parts | {"dead", "refused", "quarantine"}}


@pytest.mark.parametrize("part", ["commands", "events"])
def test_business_queues_keep_what_they_hold(topology: Topology, part: str) -> None:
    assert queues(topology)[f"ns.orders.{part}"] == {
        "x-queue-type": "quorum",
        "x-delivery-limit": 100,
        "x-dead-letter-exchange": "ns.orders.undeliverable",
        "x-dead-letter-strategy": "at-least-once",
        "x-overflow": "reject-publish",
    }


def test_requests_are_classic_and_are_not_buried(topology: Topology) -> None:
    assert queues(topology)["ns.orders.requests"] == {"x-queue-type": "classic"}


def test_requests_may_outlive_a_node_in_a_queue_of_another_name() -> None:
    names = Names("ns", has_replicated_requests=True)
    topology = names.of_service("orders", EVERYTHING)

    assert queues(topology)["ns.orders.requests.ha"] == {"x-queue-type": "quorum", "x-delivery-limit": 3}
    assert "ns.orders.requests" not in queues(topology)
    assert bindings(topology, names.queue("orders", "requests")) == {
        ("ns.requests", "orders.get.v1"),
        ("ns.orders.return", "ns.orders.requests.ha"),
    }


def test_nothing_else_has_another_name_then() -> None:
    plain, replicated = NAMES.of_service("orders", EVERYTHING), Names("ns", True).of_service("orders", EVERYTHING)

    assert plain.exchanges == replicated.exchanges
    assert set(queues(plain)) ^ set(queues(replicated)) == {"ns.orders.requests", "ns.orders.requests.ha"}


def test_a_rung_brings_a_message_back_under_its_own_routing_key(topology: Topology) -> None:
    arguments = queues(topology)["ns.orders.retry.5000"]

    assert arguments["x-message-ttl"] == 5_000
    assert arguments["x-dead-letter-exchange"] == "ns.orders.return"
    assert arguments["x-dead-letter-strategy"] == "at-least-once"
    assert arguments["x-overflow"] == "reject-publish"
    assert "x-dead-letter-routing-key" not in arguments
    assert bindings(topology, "ns.orders.retry.5000") == {("ns.orders.retry.5000", "")}


@pytest.mark.parametrize("part", ["dead", "refused"])
def test_what_people_decide_on_is_kept_without_limit(topology: Topology, part: str) -> None:
    assert queues(topology)[f"ns.orders.{part}"] == {
        "x-queue-type": "quorum",
        "x-delivery-limit": 1_000_000,
        "x-overflow": "reject-publish",
    }


def test_what_an_outsider_fills_is_bounded(topology: Topology) -> None:
    assert queues(topology)["ns.orders.quarantine"] == {
        "x-queue-type": "classic",
        "x-max-length": 1_000,
        "x-max-length-bytes": 16 * 1024**2,
    }


def test_a_notice_of_faults_ages_and_never_blocks_the_service_that_failed(topology: Topology) -> None:
    assert queues(topology)["ns.orders.faults"] == {
        "x-queue-type": "quorum",
        "x-delivery-limit": 100,
        "x-max-length": 100_000,
        "x-overflow": "drop-head",
        "x-message-ttl": 7 * 24 * 3_600_000,
    }


@pytest.mark.parametrize(
    ("part", "expected"),
    [
        (
            "commands",
            {
                ("ns.commands", "orders.place.v1"),
                ("ns.commands", "orders.place.v2"),
                ("ns.commands", "orders.cancel.v1"),
                ("ns.orders.return", "ns.orders.commands"),
            },
        ),
        ("requests", {("ns.requests", "orders.get.v1"), ("ns.orders.return", "ns.orders.requests")}),
        ("events", {("ns.events", "users.registered.v1"), ("ns.orders.return", "ns.orders.events")}),
        ("faults", {("ns.dead", "dead.*.orders"), ("ns.orders.return", "ns.orders.faults")}),
        ("dead", {("ns.dead", "dead.orders.#"), ("ns.orders.undeliverable", "")}),
        ("refused", {("ns.orders.return", "ns.orders.refused")}),
        ("quarantine", {("ns.orders.return", "ns.orders.quarantine")}),
    ],
)
def test_a_queue_is_bound_by_what_it_carries_and_by_its_own_name(
    topology: Topology, part: str, expected: set[tuple[str, str]]
) -> None:
    assert bindings(topology, f"ns.orders.{part}") == expected


def test_what_cannot_come_back_goes_to_the_dead_letters(topology: Topology) -> None:
    back = next(exchange for exchange in topology.exchanges if exchange.name == "ns.orders.return")

    assert back.type == "direct"
    assert back.arguments == {"alternate-exchange": "ns.orders.undeliverable"}
    assert Exchange(name="x", type="topic").arguments == {}


def test_nothing_of_another_namespace_or_service_is_named(topology: Topology) -> None:
    own = {exchange.name for exchange in topology.exchanges} - TOPICS

    assert all(name.startswith("ns.orders.") for name in own | queues(topology).keys())
    assert all(binding.exchange for binding in topology.bindings)


def test_every_binding_has_both_its_ends(topology: Topology) -> None:
    exchanges = {exchange.name for exchange in topology.exchanges}

    assert {binding.exchange for binding in topology.bindings} <= exchanges
    assert {binding.queue for binding in topology.bindings} == queues(topology).keys()


def test_every_limit_is_positive(topology: Topology) -> None:
    numbers = [value for arguments in queues(topology).values() for value in arguments.values() if type(value) is int]

    assert numbers
    assert all(number > 0 for number in numbers)


def test_a_reply_queue_goes_after_its_owner() -> None:
    topology = NAMES.of_replies("users", "0123456789abcdef")
    name = "ns.users.replies.0123456789abcdef"

    assert queues(topology) == {name: {"x-queue-type": "classic", "x-expires": 30 * 60_000}}
    assert bindings(topology, name) == {("ns.replies", name)}
    assert {exchange.name for exchange in topology.exchanges} == TOPICS


def test_a_sum_names_everything_once_in_order() -> None:
    one = Topology(exchanges=(Exchange(name="a", type="topic"),), queues=(Queue(name="q"),))
    two = Topology(
        exchanges=(Exchange(name="b", type="topic"), Exchange(name="a", type="topic")),
        queues=(Queue(name="q"),),
        bindings=(Binding(exchange="a", queue="q", routing_key="k"),),
    )

    total = one + two

    assert [exchange.name for exchange in total.exchanges] == ["a", "b"]
    assert total.queues == (Queue(name="q"),)
    assert total.bindings == two.bindings
    assert one + one == one


@pytest.mark.parametrize(
    ("declares", "shared", "own", "replies"),
    [
        (Declares.ALL, True, True, True),
        (Declares.OWN, False, True, True),
        (Declares.REPLIES, False, False, True),
    ],
)
def test_who_makes_what(declares: Declares, shared: bool, own: bool, replies: bool) -> None:
    topology = NAMES.of_service("orders", EVERYTHING)
    reply_queue = NAMES.of_replies("orders", "0" * 16).queues[0]

    assert {declares.makes(exchange) for exchange in topology.exchanges if exchange.name in TOPICS} == {shared}
    assert {declares.makes(exchange) for exchange in topology.exchanges if exchange.name not in TOPICS} == {own}
    assert {declares.makes(queue) for queue in topology.queues} == {own}
    assert declares.makes(reply_queue) is replies


def test_the_way_back_of_a_service_is_known_in_any_namespace() -> None:
    assert is_way_back(Names("prod").return_exchange("orders"), "orders")
    assert not is_way_back(Names("prod").return_exchange("users"), "orders")
    assert not is_way_back(Names("prod").undeliverable_exchange("orders"), "orders")


KEYED = Subscriptions(
    commands=frozenset({("orders.book", 1), ("orders.note", 1)}),
    keyed=frozenset({("orders.book", 1)}),
    rungs_ms=(1_000,),
)


def test_partitions_are_like_the_plain_queue_with_one_active_consumer() -> None:
    names = Names("t")
    declared = queues(names.of_service("orders", replace(KEYED, partitions=2)))

    assert declared["t.orders.commands.p0"] == {**declared["t.orders.commands"], SINGLE_ACTIVE: True}
    assert [name for name in declared if ".p" in name] == ["t.orders.commands.p0", "t.orders.commands.p1"]
    assert SINGLE_ACTIVE not in declared["t.orders.commands"]


def test_partition_is_bound_by_the_bits_of_its_slots_and_by_its_own_name() -> None:
    topology = Names("t").of_service("orders", replace(KEYED, partitions=2))

    stars = ".*" * 11
    assert bindings(topology, "t.orders.commands.p1") == {
        ("t.commands", f"orders.book.v1.1{stars}"),
        ("t.orders.return", "t.orders.commands.p1"),
    }
    assert bindings(topology, "t.orders.commands") == {
        ("t.commands", "orders.book.v1"),
        ("t.commands", "orders.note.v1"),
        ("t.orders.return", "t.orders.commands"),
    }


def test_without_partitions_the_plain_queue_takes_every_slot() -> None:
    topology = Names("t").of_service("orders", KEYED)

    stars = ".*" * 11
    assert bindings(topology, "t.orders.commands") >= {
        ("t.commands", f"orders.book.v1.0{stars}"),
        ("t.commands", f"orders.book.v1.1{stars}"),
    }
    assert not [name for name in queues(topology) if ".p" in name]


def test_keyless_service_has_the_topology_it_always_had() -> None:
    plain = replace(KEYED, keyed=frozenset())

    assert bindings(Names("t").of_service("orders", plain), "t.orders.commands") == {
        ("t.commands", "orders.book.v1"),
        ("t.commands", "orders.note.v1"),
        ("t.orders.return", "t.orders.commands"),
    }


def test_routing_key_of_a_command_with_a_key_ends_with_its_slot() -> None:
    assert slot_routing_key("orders.book.v1", 0b1000_0000_0011) == "orders.book.v1.1.0.0.0.0.0.0.0.0.0.1.1"
