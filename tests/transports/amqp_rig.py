"""The rig of the AMQP transport: each transport reaches the broker through its own proxy, which can cut and hold."""

import asyncio
import contextlib
import dataclasses
import secrets
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import aiormq
from aiormq.abc import ChannelFrame
from pamqp.body import ContentBody
from pamqp.header import ContentHeader
from yarl import URL

from messaging.core.sealed import Route
from messaging.core.topology import Declares, Names
from messaging.transports.amqp import AmqpTransport
from messaging.transports.amqp.parcel import Parcel
from messaging.transports.base import Transport
from tests.support.ambient import REAL
from tests.support.broker import Broker
from tests.support.proxy import TcpProxy
from tests.transports.rig import KEY, label

__all__ = ["AmqpRig", "inject", "parcel"]


def parcel(exchange: str, number: int = 0, *, key: str = KEY, body: bytes = b"x") -> Parcel:
    """Return a message whose id is made of the number."""
    route = Route(exchange=exchange, routing_key=key)
    return Parcel.of(body, route, label(number), new_id=REAL.new_id)


async def inject(
    channel: aiormq.Channel,
    exchange: str,
    routing_key: str,
    body: bytes,
    properties: aiormq.spec.Basic.Properties,
    *,
    spoil: Callable[[bytes], bytes] = bytes,
) -> None:
    """Publish with just these properties (aiormq would add an id), and return once the broker has read it."""
    frames: list[Any] = [
        aiormq.spec.Basic.Publish(exchange=exchange, routing_key=routing_key),
        ContentHeader(properties=properties, body_size=len(body)),
        ContentBody(body),
    ]
    frame = ChannelFrame.marshall(channel.number, frames)
    await channel.write_queue.put(dataclasses.replace(frame, payload=spoil(frame.payload)))
    await channel.basic_qos(prefetch_count=1)


class AmqpRig:
    """One real broker as the conformance suite sees it; its transports take the fast path, or the plain one."""

    def __init__(self, broker: Broker, *, fast: bool = True) -> None:
        self.url = URL(broker.url)
        self._fast = fast
        self._max_body_bytes = broker.max_body_bytes
        self._names = Names(f"t{secrets.token_hex(6)}")
        self._proxies: dict[int, TcpProxy] = {}
        self._transports: list[AmqpTransport] = []

    @property
    def names(self) -> Names:
        return self._names

    @property
    def max_body_bytes(self) -> int:
        return self._max_body_bytes

    async def transport(self, *, declares: Declares = Declares.ALL) -> AmqpTransport:
        proxy = TcpProxy(self.url.host or "", self.url.port or 5672)
        await proxy.open()
        address = str(self.url.with_host("127.0.0.1").with_port(proxy.port))
        transport = AmqpTransport([address], ambient=REAL, declares=declares, fast=self._fast)
        self._proxies[id(transport)] = proxy
        self._transports.append(transport)
        await transport.connect()
        return transport

    def proxy_of(self, transport: Transport) -> TcpProxy:
        return self._proxies[id(transport)]

    async def kill(self, transport: Transport) -> None:
        self.proxy_of(transport).refuse()

    async def cut(self, transport: Transport) -> None:
        await self.proxy_of(transport).cut_and_wait()

    @contextlib.asynccontextmanager
    async def stalled(self) -> AsyncIterator[None]:
        for proxy in self._proxies.values():
            proxy.hold()
        try:
            yield
        finally:
            for proxy in self._proxies.values():
                proxy.release()

    async def inject(
        self, exchange: str, routing_key: str, body: bytes, *, headers: Mapping[str, object] | None = None
    ) -> None:
        async with self.foreigner() as channel:
            # pamqp writes a byte array, and no bytes, as AMQP's byte array.
            table: dict[str, Any] = {
                name: bytearray(value) if isinstance(value, bytes) else value for name, value in (headers or {}).items()
            }
            await inject(channel, exchange, routing_key, body, aiormq.spec.Basic.Properties(headers=table or None))

    async def inject_spoiled(
        self, exchange: str, routing_key: str, body: bytes, *, message_id: str, spoil: Callable[[bytes], bytes]
    ) -> None:
        """Publish as a broken or hostile client would: `spoil` changes the bytes of the frames."""
        async with self.foreigner() as channel:
            properties = aiormq.spec.Basic.Properties(message_id=message_id)
            await inject(channel, exchange, routing_key, body, properties, spoil=spoil)

    @contextlib.asynccontextmanager
    async def foreigner(self) -> AsyncIterator[aiormq.Channel]:
        """Lend a channel of a client that knows nothing of us."""
        async with aiormq.connect(str(self.url)) as connection:
            channel = await connection.channel(publisher_confirms=False)
            assert isinstance(channel, aiormq.Channel)
            yield channel

    async def aclose(self) -> None:
        """Close what is open, and delete every queue and exchange of the namespace."""
        queues = {queue.name for transport in self._transports for queue in transport.remembered.queues}
        exchanges = {exchange.name for transport in self._transports for exchange in transport.remembered.exchanges}
        await asyncio.gather(*(transport.aclose() for transport in self._transports))
        for proxy in self._proxies.values():
            await proxy.aclose()
        async with self.foreigner() as channel:
            for queue in queues:
                await channel.queue_delete(queue)
            for exchange in exchanges:
                await channel.exchange_delete(exchange)
