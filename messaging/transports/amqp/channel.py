"""One channel behind three verbs: `publish` returns a future, `consume` hands over by plain calls, `settle` acks.

Two kinds stand behind them: the fast one (`fast`), which handles the frames of messages itself, and the plain one
(`plain`), which leaves them to aiormq. Both keep these rules:

- Nothing waits for a confirm but the future that stands for it.
- When the channel goes, every open future fails with `OutcomeUnknownError` and the broker's reason.
- Before we close a channel ourselves, nothing may be left to write: a frame after Close ends the whole connection.
"""

import asyncio
from collections.abc import Callable
from typing import Protocol

from messaging.transports.amqp.arrival import Message
from messaging.transports.amqp.capability import obstacle
from messaging.transports.amqp.connection import Connection
from messaging.transports.amqp.fast import FastChannel
from messaging.transports.amqp.parcel import Parcel
from messaging.transports.amqp.plain import PlainChannel
from messaging.transports.amqp.settlements import How
from messaging.transports.base import Confirm

__all__ = ["Channel", "open_channel"]


class Channel(Protocol):
    """A channel of either kind.

    Attributes:
        gone: Done with a one-line reason once the channel, or the consumer on it, is of no more use.
    """

    gone: asyncio.Future[str]

    @property
    def is_closed(self) -> bool:
        """Whether the channel is gone."""

    @property
    def is_consuming(self) -> bool:
        """Whether the client still knows our consumer."""

    @property
    def unsaid_settlements(self) -> int:
        """How many deliveries were settled without the broker being told; once the channel is gone, for good."""

    def publish(self, parcel: Parcel) -> asyncio.Future[None]:
        """Send a message and return the future of its confirm; see `send`."""

    def send(self, parcel: Parcel, confirm: Confirm) -> None:
        """Send a message and tell `confirm` what became of it, later than this call.

        It fails with `UnroutableError`, with `PublishNotConfirmedError` when the broker refused it, or with
        `OutcomeUnknownError` when the channel went first. No more than `confirms.WINDOW` messages and `WINDOW_BYTES`
        may be open at once.

        Raises:
            BufferError: More than that are.
        """

    def flush(self) -> None:
        """Write now what was sent and settled, where it would be written at the end of this turn."""

    async def consume(self, queue: str, on_message: Callable[[Message], None], *, prefetch: int, tag: str) -> None:
        """Start a consumer; `on_message` is called with each message, in order. It hands over and never raises.

        Raises:
            Exception: What the client raises; the broker has closed the channel then.
        """

    async def cancel(self) -> None:
        """Stop deliveries; what arrived can still be settled."""

    def settle(self, tag: int, how: How) -> bool:
        """Tell the broker what happened to a delivery; False when the channel is gone and it cannot be told."""

    async def settled(self) -> None:
        """Return once the broker has read every settlement."""

    def give_up(self, reason: str) -> None:
        """Declare the channel useless, so that its owner replaces it."""

    async def aclose(self) -> None:
        """Close the channel within bounds. Futures that are still open then fail with an unknown outcome."""


async def open_channel(connection: Connection, *, confirms: bool) -> Channel:
    """Open a channel of the kind that the connection allows.

    Raises:
        ConnectionLostError: The connection is gone or does not answer.
    """
    channel = await connection.open_channel(confirms=confirms)
    splitter = connection.splitter
    if splitter is None or not connection.fast_path.is_on:
        return PlainChannel(channel)
    problem = obstacle(channel, splitter)
    if problem is not None:
        connection.fast_path.refuse(problem)
        return PlainChannel(channel)
    return FastChannel(channel, splitter)
