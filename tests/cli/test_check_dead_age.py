"""How old the oldest dead letter is, without a key."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from messaging.cli.check_dead_age import check_dead_age
from messaging.cli.finding import Finding, State
from messaging.transports.memory import MemoryTransport
from tests.support.shop import PlaceOrder
from tests.support.stage import Stage


@asynccontextmanager
async def dead(*bodies: str) -> AsyncIterator[tuple[Stage, MemoryTransport]]:
    async with Stage() as stage:
        transport = MemoryTransport(stage.broker, ambient=stage.clock.ambient)
        await transport.connect()
        await transport.declare(stage.names._failures("orders") + stage.names.shared())
        for body in bodies:
            raw = stage.sealed(PlaceOrder(), "users") if body == "sealed" else body.encode()
            stage.broker.inject(stage.names.undeliverable_exchange("orders"), "", raw)
        yield stage, transport
        await transport.aclose()


async def found_in(stage: Stage, transport: MemoryTransport, limit_s: float) -> list[Finding]:
    checks = check_dead_age(transport, stage.names, ["orders", "nowhere"], limit_s=limit_s, ambient=stage.clock.ambient)
    return [finding async for finding in checks]


@pytest.mark.parametrize(("limit_s", "state"), [(3600.0, State.WARN), (2 * 86_400.0, State.OK)])
async def test_the_oldest_counts(limit_s: float, state: State) -> None:
    async with dead("junk", "sealed") as (stage, transport):
        await stage.advance(86_400.0)
        stage.broker.inject(
            stage.names.undeliverable_exchange("orders"), "", stage.sealed(PlaceOrder(number=2), "users")
        )

        [found] = await found_in(stage, transport, limit_s)

        assert (found.state, found.words) == (state, "the oldest is from 1 d ago")
        assert stage.depth("orders", "dead") == 3


async def test_what_tells_no_time_has_no_age() -> None:
    async with dead("junk") as (stage, transport):
        [found] = await found_in(stage, transport, 1.0)

        assert (found.state, found.words) == (State.OK, "no letter tells its time")


async def test_nothing_dead_is_nothing_to_tell() -> None:
    async with dead() as (stage, transport):
        assert await found_in(stage, transport, 1.0) == []
