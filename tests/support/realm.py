"""A realm of three services and an operator, with its own clock, and the tools of whoever holds some of its keys."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final
from uuid import UUID, uuid4

import msgpack

from messaging.core.ambient import Ambient
from messaging.core.envelope import CODEC_RAW, Envelope, Kind
from messaging.core.topology import Names, Subscriptions, dead_routing_key, routing_key
from messaging.security import suite
from messaging.security.bundle import OPS_GROUP
from messaging.security.bundle_format import sign_bundle
from messaging.security.content import pack_fault
from messaging.security.development import encryption_entry, identity_entry
from messaging.security.keyring import Keyring
from messaging.security.keys import DecryptionKey, SigningKey
from messaging.security.open import Opener
from messaging.security.outer import Parts, join_parts, split_parts
from messaging.security.seal import Sealer
from messaging.security.settling import SETTLE_S
from messaging.security.trust import TrustStore

__all__ = ["EVERY_KIND", "NAMES", "START_MS", "Clock", "Realm", "alter_header", "envelope", "resign"]

START_MS: Final = 1_800_000_000_000
NAMES: Final = Names("messaging")
REALM: Final = "test"
EVERY_KIND: Final = frozenset(Kind)
DAY_MS: Final = 24 * 3_600_000


@dataclass
class Clock:
    """A clock that moves when told."""

    now_ms: int = START_MS
    monotonic_s: float = 0.0

    def advance(self, seconds: float) -> None:
        self.now_ms += int(seconds * 1000)
        self.monotonic_s += seconds

    @property
    def ambient(self) -> Ambient:
        return Ambient(
            now_ms=lambda: self.now_ms, monotonic_s=lambda: self.monotonic_s, new_id=uuid4, jitter=lambda: 0.5
        )


SUBSCRIPTIONS: Final[Mapping[str, Subscriptions]] = {
    "orders": Subscriptions(
        commands=frozenset({("orders.place_order", 1)}), requests=frozenset({("orders.get_order", 1)})
    ),
    "users": Subscriptions(events=frozenset({("orders.order_placed", 1)}), faults=True),
    "billing": Subscriptions(events=frozenset({("orders.order_placed", 1)})),
}


@dataclass
class Realm:
    """orders serves users; users and billing read its event; ops:alice replays. Every bundle is signed by one root.

    Everybody has encryption keys of suite 1 and of the other suites that are asked for.
    """

    clock: Clock = field(default_factory=Clock)
    root: SigningKey = field(default_factory=lambda: SigningKey.generate(REALM))
    group_key: DecryptionKey = field(default_factory=lambda: DecryptionKey.generate(REALM))
    suites: tuple[int, ...] = (suite.SUITE_1,)
    keyrings: dict[str, Keyring] = field(default_factory=dict)
    stores: dict[str, TrustStore] = field(default_factory=dict)
    payload: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.group_keys = (
            self.group_key,
            *(DecryptionKey.generate(REALM, number) for number in self.suites if number != suite.SUITE_1),
        )
        for name in ("orders", "users", "billing", "ops:alice"):
            self.keyrings[name] = self.new_keyring(name)
        self.keyrings["ops:alice"] = self.keyrings["ops:alice"].with_group(OPS_GROUP, self.group_keys)
        self.payload = self._first_payload()
        for name, keyring in self.keyrings.items():
            self.stores[name] = TrustStore(keyring, ambient=self.clock.ambient)
        self.publish()

    def new_keyring(self, name: str) -> Keyring:
        suites = sorted({suite.SUITE_1, *self.suites})
        return Keyring.generate(name, realm=REALM, roots=(self.root.public,), suites=suites)

    def change(self, edit: Callable[[dict[str, Any]], object] | None = None) -> bytes:
        """Edit the payload, raise its version, and return the signed bytes.

        It was signed half a minute ago, so what is new in it is used; tests of that half minute say otherwise.
        """
        self.payload["version"] += 1
        self.payload["issued"] = self.clock.now_ms - int(SETTLE_S * 1000)
        if edit is not None:
            edit(self.payload)
        return sign_bundle(self.payload, [self.root])

    def publish(self, edit: Callable[[dict[str, Any]], object] | None = None, *, to: str | None = None) -> bytes:
        """Change the bundle and put it in force, everywhere or in one place."""
        raw = self.change(edit)
        for name, store in self.stores.items():
            if to in {None, name}:
                store.replace(raw)
        return raw

    def sealer(self, name: str) -> Sealer:
        return Sealer(self.keyrings[name], self.stores[name], NAMES, ambient=self.clock.ambient)

    def opener(self, name: str, **options: Any) -> Opener:
        subscriptions = options.pop("subscriptions", SUBSCRIPTIONS.get(name, Subscriptions()))
        return Opener(
            self.keyrings[name],
            self.stores[name],
            NAMES,
            ambient=self.clock.ambient,
            subscriptions=subscriptions,
            **options,
        )

    def envelope(self, **changes: Any) -> Envelope:
        return envelope(self.clock, **changes)

    def sealed(self, **changes: Any) -> bytes:
        """Return a sealed message of the envelope's own sender."""
        made = self.envelope(**changes)
        return self.sealer(made.sender).seal(made, routing_key=routing_key(made.name, made.version))

    def reply(self, request: bytes, **changes: Any) -> bytes:
        """Return the reply of orders to a sealed request."""
        asked = self.opener("orders").verify(request, kinds=EVERY_KIND)
        values: dict[str, Any] = {
            "kind": Kind.REPLY,
            "name": asked.name,
            "sender": "orders",
            "audience": asked.sender,
            "correlation_id": asked.id,
            "bind": asked.leaf,
        }
        made = self.envelope(**(values | changes))
        return self.sealer(made.sender).seal(made, routing_key=asked.reply_to or "")

    def fault(self, original: bytes, *, sender: str = "orders", origin: str | None = "users", **changes: Any) -> bytes:
        """Return the fault by which a service buries a sealed message."""
        failed = split_parts(original)
        values: dict[str, Any] = {
            "id": suite.fault_id(failed.leaf(), 0),
            "kind": Kind.FAULT,
            "name": "orders.place_order",
            "sender": sender,
            "audience": origin or sender,
            "bind": failed.leaf(),
            "payload": pack_fault(original, {"error": "ValueError", "reason": "no"}),
        }
        made = self.envelope(**(values | changes))
        return self.sealer(sender).seal(made, routing_key=dead_routing_key(sender, origin))

    def replay(self, original: bytes, *, part: str = "commands", **changes: Any) -> bytes:
        """Return the replay of a sealed message by the operator."""
        values: dict[str, Any] = {
            "kind": Kind.REPLAY,
            "name": "orders.place_order",
            "sender": "ops:alice",
            "audience": "orders",
            "bind": split_parts(original).leaf(),
            "payload": original,
            "codec": CODEC_RAW,
        }
        made = self.envelope(**(values | changes))
        return self.sealer("ops:alice").seal(made, routing_key=NAMES.queue(made.audience, part))

    def revoke(self, name: str, reason: str, *, part: str = "sign") -> Callable[[dict[str, Any]], object]:
        """Return the edit that revokes the first key of an identity."""

        def edit(payload: dict[str, Any]) -> None:
            section = "operators" if ":" in name else "services"
            kid = payload[section][name][part][0]["kid"]
            payload["revoked"].append({"kid": kid, "at": START_MS, "reason": reason})

        return edit

    def signer(self, name: str) -> SigningKey:
        return self.keyrings[name].signing[0]

    def _first_payload(self) -> dict[str, Any]:
        entries = {name: identity_entry(keyring) for name, keyring in self.keyrings.items()}
        return {
            "realm": REALM,
            "dev": False,
            "version": 1,
            "issued": START_MS,
            "expires": START_MS + 365 * DAY_MS,
            "suites": list(self.suites),
            "max_lifetime_s": 7 * 24 * 3600,
            "services": {name: entry for name, entry in entries.items() if ":" not in name},
            "operators": {"ops:alice": entries["ops:alice"]},
            "groups": {
                OPS_GROUP: {
                    "enc": [encryption_entry(key) for key in self.group_keys],
                    "members": ["ops:alice"],
                }
            },
            "revoked": [],
            "policy": {
                "send": [
                    {"from": "users", "kind": "command", "name": "orders.*", "to": "orders"},
                    {"from": "users", "kind": "request", "name": "orders.get_order", "to": "orders"},
                    {"from": "ops:alice", "kind": "request", "name": "orders.*", "to": "orders"},
                    {"from": "ops:alice", "kind": "event", "name": "orders.order_placed", "to": "orders"},
                ],
                "subscribe": {"orders.order_placed": ["users", "billing"]},
                "escrow": {"command": True, "event": True, "request": False, "reply": False},
                "replay": [
                    {"operator": "ops:alice", "name": "orders.*", "to": "orders", "force": False},
                    {"operator": "ops:alice", "name": "orders.*", "to": "users", "force": True},
                ],
            },
        }


def envelope(clock: Clock, **changes: Any) -> Envelope:
    """Return a command of users to orders, changed as told."""
    values: dict[str, Any] = {
        "id": uuid4(),
        "kind": Kind.COMMAND,
        "name": "orders.place_order",
        "version": 1,
        "sender": "users",
        "issued_at_ms": clock.now_ms,
        "expires_at_ms": clock.now_ms + DAY_MS,
        "payload": b"\x81\xa1n\x01",
        "correlation_id": UUID(int=7),
    }
    values.update(changes)
    if values["kind"] is Kind.REQUEST:
        values.setdefault("reply_to", NAMES.reply_queue(values["sender"], "00112233445566ff"))
    if "audience" not in values:
        owner = values["name"].partition(".")[0]
        values["audience"] = f"event:{values['name']}" if values["kind"] is Kind.EVENT else owner
    return Envelope(**values)


def alter_header(header: bytes, changes: Mapping[int, object]) -> bytes:
    """Return a header with some of its fields, by number, set to other values."""
    fields = msgpack.unpackb(header, raw=False)
    for at, value in changes.items():
        fields[at] = value
    return bytes(msgpack.packb(fields))


def resign(body: bytes, signer: SigningKey, *, fields: Mapping[int, object] | None = None, **changes: Any) -> bytes:
    """Return a message with other parts, signed alone by a key: what whoever holds that key can make.

    Args:
        body: A sealed message.
        signer: The key at hand.
        fields: Header fields to change, by number.
        changes: Parts to change.
    """
    parts = split_parts(body)
    if fields:
        parts = replace(parts, header=alter_header(parts.header, fields))
    parts = replace(parts, size=1, index=0, path=b"", **changes)
    signature = signer.sign(suite.root_statement(signer.kid, 1, parts.leaf()))
    return join_parts(Parts(parts.header, parts.block, parts.content, signature, 1, 0, b""))
