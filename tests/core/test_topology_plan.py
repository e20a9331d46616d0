"""What separates the topology that should exist from the one that does."""

from dataclasses import replace

from messaging.core.delays import delay_topology
from messaging.core.topology import Argument, Binding, Names, Subscriptions, Topology
from messaging.core.topology_plan import TYPE, Difference, Existing, Plan, Todo, plan_topology

NAMES = Names("shop")
COMMANDS = NAMES.queue("orders", "commands")
WANTED = NAMES.of_service("orders", Subscriptions(commands=frozenset({("orders.place", 1)}), rungs_ms=(1000,)))


def existing(topology: Topology = WANTED) -> Existing:
    """Return a broker that has just this."""
    return Existing(
        exchanges={one.name: {TYPE: one.type, **one.arguments} for one in topology.exchanges},
        queues={one.name: dict(one.arguments) for one in topology.queues},
        bindings=frozenset(topology.bindings),
    )


def plan(found: Existing) -> Plan:
    return plan_topology(WANTED, found, names=NAMES, services=["orders"])


def test_what_is_as_it_should_be_needs_nothing() -> None:
    assert plan(existing()).is_empty


def test_on_an_empty_broker_everything_is_to_be_made() -> None:
    found = plan(Existing(exchanges={}, queues={}, bindings=frozenset()))

    total = len(WANTED.exchanges) + len(WANTED.queues) + len(WANTED.bindings)
    assert len(found.of(Todo.CREATE)) == len(found.steps) == total


def test_arguments_differ_one_by_one() -> None:
    there = existing()
    arguments = {**there.queues[COMMANDS], "x-delivery-limit": 20, "x-max-length": 5}
    del arguments["x-overflow"]

    [step] = plan(replace(there, queues={**there.queues, COMMANDS: arguments})).steps

    assert step.todo is Todo.DIFFERS
    assert step.what == f"queue {COMMANDS}"
    assert step.differences == (
        Difference(argument="x-delivery-limit", wanted=100, found=20),
        Difference(argument="x-max-length", wanted=None, found=5),
        Difference(argument="x-overflow", wanted="reject-publish", found=None),
    )
    assert [str(one) for one in step.differences] == [
        "x-delivery-limit: wanted 100, found 20",
        "x-max-length: wanted nothing, found 5",
        "x-overflow: wanted reject-publish, found nothing",
    ]


def test_an_exchange_of_another_type_differs() -> None:
    there = existing()

    [step] = plan(replace(there, exchanges={**there.exchanges, NAMES.commands: {TYPE: "direct"}})).steps

    assert step.differences == (Difference(argument=TYPE, wanted="topic", found="direct"),)


def test_a_binding_without_a_handler_is_to_be_taken_away() -> None:
    there = existing()
    stale = Binding(exchange=NAMES.commands, queue=COMMANDS, routing_key="orders.cancel.v1")
    default = Binding(exchange="", queue=COMMANDS, routing_key=COMMANDS)
    foreign = Binding(exchange=NAMES.events, queue=NAMES.queue("users", "events"), routing_key="orders.placed.v1")
    gone = Binding(exchange=NAMES.events, queue=NAMES.queue("orders", "events"), routing_key="users.moved.v1")

    found = plan(replace(there, bindings=frozenset({*WANTED.bindings, stale, default, foreign, gone})))

    assert [step.binding for step in found.steps] == [stale]
    assert found.steps[0].todo is Todo.UNBIND
    assert found.steps[0].what == f"binding of queue {COMMANDS} to exchange {NAMES.commands} by orders.cancel.v1"


def test_delay_levels_that_others_need_are_not_taken_away() -> None:
    assert plan(existing(WANTED + delay_topology(NAMES, "orders"))).is_empty


def test_a_step_names_what_it_is_about() -> None:
    there = existing()
    queues = {name: arguments for name, arguments in there.queues.items() if name != COMMANDS}
    bound = frozenset(binding for binding in WANTED.bindings if binding.queue != COMMANDS)

    found = plan(replace(there, queues=queues, bindings=bound)).steps

    assert {step.name for step in found} == {COMMANDS}
    assert [step.thing is None for step in found] == [False, True, True]


def test_a_missing_binding_is_to_be_made() -> None:
    lost = WANTED.bindings[0]

    [step] = plan(replace(existing(), bindings=frozenset(WANTED.bindings) - {lost})).steps

    assert (step.todo, step.what) == (
        Todo.CREATE,
        f"binding of queue {lost.queue} to exchange {lost.exchange}"
        + (f" by {lost.routing_key}" if lost.routing_key else ""),
    )


def test_bindings_that_nobody_could_be_asked_for_are_left_out() -> None:
    assert plan(replace(existing(), bindings=None)).is_empty


def test_a_queue_that_is_not_needed_any_more_is_told_and_nothing_deletes_it() -> None:
    there = existing()
    others: dict[str, dict[str, Argument]] = {
        NAMES.queue("orders", "events"): {},
        NAMES.queue("orders", "replies.0123456789abcdef"): {},
        NAMES.lock(NAMES.queue("orders", "dead")): {},
        NAMES.queue("orders", "delay.03"): {},
        NAMES.queue("orders2", "commands"): {},
        "foreign": {},
    }

    found = plan(replace(there, queues={**there.queues, **others}))

    assert [(step.todo, step.what) for step in found.steps] == [
        (Todo.LEFT_OVER, f"queue {NAMES.queue('orders', 'events')}")
    ]


def test_fewer_partitions_leave_queues_over_and_their_bindings_are_taken_away() -> None:
    keyed = Subscriptions(
        commands=frozenset({("orders.place", 1)}), keyed=frozenset({("orders.place", 1)}), rungs_ms=(1000,)
    )
    four, two = (NAMES.of_service("orders", replace(keyed, partitions=count)) for count in (4, 2))

    found = plan_topology(two, existing(four + WANTED), names=NAMES, services=["orders"])

    stale = {step.binding for step in found.of(Todo.UNBIND)}
    assert stale >= set(NAMES.slot_bindings("orders", keyed.keyed, 4))
    assert not stale & set(two.bindings)
    assert {step.what for step in found.of(Todo.LEFT_OVER)} == {
        f"queue {NAMES.partition('orders', number)}" for number in (2, 3)
    }


def test_another_kind_of_request_queue_leaves_the_old_one_over_and_its_bindings_are_taken_away() -> None:
    asked = Subscriptions(requests=frozenset({("orders.get", 1)}))
    names, old = Names("shop", has_replicated_requests=True), NAMES.queue("orders", "requests")
    there = existing(NAMES.of_service("orders", asked))

    found = plan_topology(names.of_service("orders", asked), there, names=names, services=["orders"])

    assert [step.what for step in found.of(Todo.LEFT_OVER)] == [f"queue {old}"]
    assert {step.binding for step in found.of(Todo.UNBIND)} == {
        Binding(exchange="shop.requests", queue=old, routing_key="orders.get.v1"),
        Binding(exchange="shop.orders.return", queue=old, routing_key=old),
    }
    assert {step.name for step in found.of(Todo.CREATE)} == {f"{old}.ha"}
