import asyncio

import pytest

from messaging.cli.broker_node import free_port
from messaging.cli.greeting import greeting_of
from scripts.check_generation import problem_of
from tests.support.broker import Broker


def test_no_address_says_which_variable_wants_one() -> None:
    problem = problem_of("", 4)

    assert problem is not None
    assert problem.startswith("MESSAGING_TEST_BROKER_4 is not set")


def test_nobody_there_is_told() -> None:
    problem = problem_of(f"amqp://guest:guest@127.0.0.1:{free_port()}/", 4)

    assert problem is not None
    assert "connection refused" in problem


@pytest.mark.broker
def test_another_generation_will_not_do(broker: Broker) -> None:
    greeting = asyncio.run(greeting_of(broker.url, timeout_s=10.0))
    assert greeting.release is not None
    generation = greeting.release[0]

    assert problem_of(broker.url, generation) is None
    assert problem_of(broker.url, generation + 1) == (
        f"MESSAGING_TEST_BROKER_{generation + 1}: RabbitMQ {greeting.version} is no {generation + 1}.x"
    )
