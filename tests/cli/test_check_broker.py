"""What `doctor` finds at the broker: told by fakes where a real one would have to be broken first."""

from collections.abc import AsyncIterator
from contextlib import aclosing

import pamqp.commands
import pamqp.frame
import pytest

from messaging.cli.check_broker import check_broker, check_queues
from messaging.cli.finding import Finding, State
from messaging.core.topology import Names
from messaging.settings import Settings
from messaging.transports.base import QueueDepth
from tests.cli.test_greeting import listening, saying
from tests.support.installation import Installation

NAMES = Names("shopping")


class Told:
    """The part of a transport that tells depths."""

    def __init__(self, **depths: tuple[int, int]) -> None:
        self._depths = {NAMES.queue("shop", part): found for part, found in depths.items()}

    async def depth(self, queue: str) -> QueueDepth | None:
        found = self._depths.get(queue)
        return None if found is None else QueueDepth(messages=found[0], consumers=found[1])


async def gathered(found: AsyncIterator[Finding]) -> dict[str, Finding]:
    return {finding.check: finding async for finding in found}


async def queues(**depths: tuple[int, int]) -> dict[str, Finding]:
    return await gathered(check_queues(Told(**depths), NAMES, ["shop"]))


class TestQueues:
    async def test_all_is_well(self) -> None:
        found = await queues(commands=(3, 2), dead=(0, 0), refused=(0, 0), quarantine=(0, 0))

        assert {finding.state for finding in found.values()} == {State.OK}
        assert found["shop consumers"].words == "commands 2 (3 wait)"

    async def test_a_client_has_none(self) -> None:
        assert (await queues())["shop queues"].state is State.OK

    async def test_work_waits_and_nobody_consumes(self) -> None:
        found = (await queues(commands=(12, 0), events=(0, 1), dead=(0, 0)))["shop consumers"]

        assert found.state is State.FAIL
        assert "12 commands wait" in found.words

    async def test_partitions_are_looked_at_too(self) -> None:
        depths = {
            "commands": (0, 1),
            "commands.p0": (2, 1),
            "commands.p1": (5, 0),
            "commands.p2": (0, 0),
            "dead": (0, 0),
        }

        found = (await queues(**depths))["shop consumers"]

        assert found.state is State.FAIL
        assert "nobody consumes: 5 partition 1 wait" in found.words

    async def test_partitions_that_are_left_over_and_empty_are_no_trouble(self) -> None:
        depths = {"commands": (0, 1), "commands.p0": (2, 1), "commands.p1": (0, 0), "dead": (0, 0)}

        found = (await queues(**depths))["shop consumers"]

        assert found.state is State.OK
        assert found.words == "commands 1 (0 wait), partition 0 1 (2 wait)"

    async def test_nobody_consumes_and_nothing_waits(self) -> None:
        assert (await queues(commands=(0, 0), dead=(0, 0)))["shop consumers"].state is State.WARN

    @pytest.mark.parametrize(
        ("part", "check"),
        [("dead", "shop dead letters"), ("refused", "shop refused"), ("quarantine", "shop quarantine")],
    )
    async def test_what_should_be_empty_and_is_not(self, part: str, check: str) -> None:
        found = (await queues(**{"commands": (0, 1), "dead": (0, 0), part: (7, 0)}))[check]

        assert (found.state, found.words) == (State.WARN, "7 messages")
        assert found.remedy


class TestTheBroker:
    async def test_unreachable(self, offline: Installation) -> None:
        found = await gathered(check_broker(Settings(broker_url=offline.broker_url)))

        assert found["broker"].state is State.FAIL
        assert "login" not in found

    @pytest.mark.parametrize("version", ["3.9.1", "5.0.0", "mine"])
    async def test_an_untested_version_is_a_warning(self, version: str) -> None:
        start = pamqp.commands.Connection.Start(server_properties={"product": "RabbitMQ", "version": version})
        async with (
            listening(saying(pamqp.frame.marshal(start, 0))) as url,
            aclosing(check_broker(Settings(broker_url=url))) as found,
        ):
            first = await anext(found)

        assert first.state is State.WARN
        assert version in first.words

    async def test_one_that_answers_is_asked_whether_it_takes_us(self) -> None:
        start = pamqp.commands.Connection.Start(server_properties={"product": "RabbitMQ", "version": "3.10.8"})
        async with listening(saying(pamqp.frame.marshal(start, 0))) as url:
            found = await gathered(check_broker(Settings(broker_url=url, connect_timeout_s=2.0)))

        assert (found["broker"].state, found["login"].state) == (State.OK, State.FAIL)

    @pytest.mark.broker
    async def test_a_real_one(self, quiet: Installation) -> None:
        found = await gathered(check_broker(Settings(broker_url=quiet.broker_url)))

        assert found["login"].state is State.OK
        assert found["broker"].words.startswith("RabbitMQ ")

    @pytest.mark.broker
    async def test_a_wrong_password(self, quiet: Installation) -> None:
        wrong = quiet.broker_url.replace("guest:guest@", "guest:wrong@")

        found = await gathered(check_broker(Settings(broker_url=wrong)))

        assert found["broker"].state is State.OK
        assert found["login"].state is State.FAIL
        assert "wrong" not in found["login"].words
