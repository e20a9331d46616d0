"""The ports are kept to the letter by every transport; what they mean is in conformance.py."""

import inspect

import pytest

from messaging.transports.amqp import AmqpTransport
from messaging.transports.base import Death, LinkState, QueueDepth, Subscription, Transport, TransportState
from messaging.transports.memory import MemoryTransport
from messaging.transports.memory.consumer import MemorySubscription


def calls_of(port: type) -> dict[str, inspect.Signature]:
    return {
        name: inspect.signature(member)
        for name, member in vars(port).items()
        if inspect.isfunction(member) and not name.startswith("_")
    }


def parameters_of(signature: inspect.Signature) -> list[tuple[str, object, object]]:
    return [(parameter.name, parameter.kind, parameter.default) for parameter in signature.parameters.values()]


@pytest.mark.parametrize("adapter", [MemoryTransport, AmqpTransport])
def test_transports_take_the_parameters_of_the_port(adapter: type) -> None:
    differing = {
        name: parameters_of(inspect.signature(getattr(adapter, name)))
        for name, signature in calls_of(Transport).items()
        if parameters_of(inspect.signature(getattr(adapter, name))) != parameters_of(signature)
    }

    assert differing == {}


def test_subscription_takes_the_parameters_of_the_port() -> None:
    for name, signature in calls_of(Subscription).items():
        assert parameters_of(inspect.signature(getattr(MemorySubscription, name))) == parameters_of(signature)


def test_type_checker_accepts_every_transport_as_the_port() -> None:
    # The assignments are the test: mypy refuses what does not fit.
    memory: type[Transport] = MemoryTransport
    amqp: type[Transport] = AmqpTransport

    assert memory is not amqp


def test_healthy_state_needs_no_more_than_its_link() -> None:
    state = TransportState(link=LinkState.CONNECTED)

    assert (state.problem, state.dropped_acks) == (None, 0)


def test_values_compare_by_what_they_say() -> None:
    assert Death(queue="q", reason="expired", count=1) == Death(queue="q", reason="expired", count=1)
    assert QueueDepth(messages=1, consumers=0) != QueueDepth(messages=1, consumers=1)
