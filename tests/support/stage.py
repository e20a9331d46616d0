"""`Stage`: a harness with more doors: those of an attacker, of whoever signs the trust bundle, and of the broker."""

from collections.abc import Callable, Sequence
from typing import Any
from uuid import UUID

import pytest

from messaging import Service, Settings
from messaging.core.codec import encode_model
from messaging.core.envelope import Envelope, Kind
from messaging.core.message import Message, contract_of
from messaging.core.topology import Binding, Names, Queue, Topology, routing_key
from messaging.security import development
from messaging.security.development import DevelopmentTrust
from messaging.security.open import Opener
from messaging.security.seal import Sealer
from messaging.testing import Harness
from messaging.testing.clock import FixedClock
from messaging.transports.memory import MemoryBroker

__all__ = ["OPERATOR", "Stage", "change_bundle"]

OPERATOR = "ops:test"
LIFE_MS = 24 * 3_600_000
SPY = "spy"

Edit = Callable[[dict[str, Any]], object]


class Stage(Harness):
    """Runs services for a test of the runtime itself.

    Args:
        *services: The services.
        **values: Fields of the settings.
    """

    def __init__(self, *services: Service, **values: Any) -> None:
        super().__init__(*services)
        self._settings = Settings.development(**values)
        self._settings.shared(MemoryBroker, lambda: self._broker)
        self._settings.shared(DevelopmentTrust, lambda: self._trust)

    @property
    def broker(self) -> MemoryBroker:
        return self._broker

    @property
    def clock(self) -> FixedClock:
        return self._clock

    @property
    def names(self) -> Names:
        return self._settings.names

    @property
    def trust(self) -> DevelopmentTrust:
        return self._trust

    def depth(self, service: str, part: str) -> int:
        """Return how many messages a queue of a service holds, unsettled ones included."""
        return len(self.bodies(service, part))

    def spy(self) -> None:
        """Keep a copy of every command, event and request from now on."""
        exchanges = (self.names.commands, self.names.events, self.names.requests)
        self.broker.declare(
            Topology(
                queues=(Queue(name=SPY),),
                bindings=tuple(Binding(exchange=name, queue=SPY, routing_key="#") for name in exchanges),
            )
        )

    def spied(self) -> list[bytes]:
        """Return the bytes that were published since `spy`."""
        return self.broker.bodies(SPY)

    def inject(self, service: str, part: str, body: bytes, **headers: object) -> None:
        """Put any bytes into a queue of a service, as whoever reaches the broker can."""
        written = {name.replace("_", "-"): value for name, value in headers.items()}
        self.broker.inject(self.names.return_exchange(service), self.names.queue(service, part), body, headers=written)

    def sealer(self, identity: str) -> Sealer:
        """Return what seals with the keys of a service or operator."""
        join = self.trust.operator if ":" in identity else self.trust.join
        keyring, store = join(identity)
        return Sealer(keyring, store, self.names, ambient=self.clock.ambient)

    def opener(self, identity: str) -> Opener:
        """Return what opens with the keys of a service or operator."""
        join = self.trust.operator if ":" in identity else self.trust.join
        keyring, store = join(identity)
        return Opener(keyring, store, self.names, ambient=self.clock.ambient)

    def envelope(self, message: Message, sender: str, *, life_ms: int = LIFE_MS, id: UUID | None = None) -> Envelope:
        """Return the envelope in which a sender would put a message now."""
        contract = contract_of(message)
        now_ms = self.clock.now_ms()
        return Envelope.first(
            id=id or self.clock.ambient.new_id(),
            kind=contract.kind,
            name=contract.name,
            version=contract.version,
            sender=sender,
            issued_at_ms=now_ms,
            expires_at_ms=now_ms + life_ms,
            payload=encode_model(message, contract.codec),
            codec=contract.codec,
            reply_to=self.names.reply_queue(sender, "0" * 16) if contract.kind is Kind.REQUEST else None,
        )

    def sealed(self, message: Message, sender: str, *, life_ms: int = LIFE_MS, id: UUID | None = None) -> bytes:
        """Return the bytes that a sender would publish; the owner of the message is known to the realm."""
        self.trust.join(contract_of(message).owner)
        envelope = self.envelope(message, sender, life_ms=life_ms, id=id)
        return self.sealer(sender).seal(envelope, routing_key=routing_key(envelope.name, envelope.version))

    def change_bundle(self, edit: Edit, *, only: Sequence[str] = ()) -> None:
        """Sign a new bundle, edited; see `change_bundle`."""
        change_bundle(self.trust, edit, only=only)


def change_bundle(trust: DevelopmentTrust, edit: Edit, *, only: Sequence[str] = ()) -> None:
    """Sign a new bundle, edited, and install it at everybody, or at some alone.

    Args:
        trust: The realm; its next bundle comes without the edit.
        edit: Changes the payload in place.
        only: Identities that get it; the others stay behind.
    """
    made = development.development_payload

    def edited(**values: Any) -> dict[str, object]:
        payload = made(**values)
        edit(payload)
        return payload

    everybody = dict(trust._stores)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(development, "development_payload", edited)
        patch.setattr(trust, "_stores", {name: everybody[name] for name in only or everybody})
        trust._published(next(iter(only or everybody)))
