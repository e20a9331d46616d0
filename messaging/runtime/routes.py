"""`Routes`: where an envelope goes, and what the broker may see beside it."""

from typing import Final

from messaging.core.ambient import Ambient
from messaging.core.envelope import Envelope, Kind
from messaging.core.sealed import Label, Route
from messaging.core.topology import Names, slot_routing_key

__all__ = ["Routes"]

# Routes that are remembered; beyond that, all are forgotten and made again.
_KNOWN_MAX: Final = 1_024


class Routes:
    """Spells the routes of one service's messages.

    Args:
        names: The namespace.
        ambient: Gives the time.
    """

    def __init__(self, names: Names, *, ambient: Ambient) -> None:
        self._names = names
        self._now_ms = ambient.now_ms
        self._known: dict[tuple[Kind, str, str, int | None], Route] = {}

    def of(self, envelope: Envelope, key: str) -> Route:
        """Return the route of an envelope whose routing key, before its slot, is `key`."""
        kind = envelope.kind
        if kind is Kind.REQUEST or kind is Kind.REPLY:
            # Somebody waits for them now: they are worth nothing after a restart of the broker, nor too late.
            return Route(
                exchange=self._names.exchange_of(kind, envelope.audience),
                routing_key=key,
                persistent=False,
                expiration_ms=max(1, envelope.expires_at_ms - self._now_ms()),
            )
        slot = envelope.slot if kind is Kind.COMMAND else None
        place = (kind, envelope.audience, key, slot)
        route = self._known.get(place)
        if route is None:
            if len(self._known) >= _KNOWN_MAX:
                self._known.clear()
            exchange = self._names.exchange_of(kind, envelope.audience)
            routing_key = key if slot is None else slot_routing_key(key, slot)
            route = self._known[place] = Route(exchange=exchange, routing_key=routing_key)
        return route

    def label(self, envelope: Envelope) -> Label:
        """Return what stands beside the sealed bytes."""
        return Label(message_id=envelope.id.hex, type=envelope.type)
