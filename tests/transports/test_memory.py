"""The memory transport passes the whole conformance suite."""

from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager

import pytest

from messaging.ambient import real_ambient
from messaging.core.topology import Names
from messaging.transports.base import Transport
from messaging.transports.memory import MemoryBroker, MemoryTransport
from tests.transports.conformance import Rig, TransportConformance


class MemoryRig:
    """A broker of its own for each test, with RabbitMQ's way of answering and the machine's clock."""

    def __init__(self) -> None:
        self.names = Names("t")
        self.max_body_bytes = 2 * 1024 * 1024
        self.broker = MemoryBroker(body_max_bytes=self.max_body_bytes)
        self.transports: list[MemoryTransport] = []

    async def transport(self) -> Transport:
        transport = MemoryTransport(self.broker, ambient=real_ambient())
        await transport.connect()
        self.transports.append(transport)
        return transport

    async def kill(self, transport: Transport) -> None:
        self._own(transport).kill()

    async def cut(self, transport: Transport) -> None:
        self._own(transport).cut()

    def stalled(self) -> AbstractAsyncContextManager[None]:
        return self.broker.stalled()

    async def inject(
        self, exchange: str, routing_key: str, body: bytes, *, headers: Mapping[str, object] | None = None
    ) -> None:
        self.broker.inject(exchange, routing_key, body, headers=headers)

    def _own(self, transport: Transport) -> MemoryTransport:
        return next(own for own in self.transports if own is transport)


class TestMemoryTransport(TransportConformance):
    @pytest.fixture
    async def rig(self) -> AsyncIterator[Rig]:
        rig = MemoryRig()
        yield rig
        for transport in rig.transports:
            await transport.aclose()
