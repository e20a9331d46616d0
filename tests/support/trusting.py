"""A folder where bundles are made, with its root keys and the keyrings that it knows, for tests of changing trust."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from messaging.core.names import is_operator
from messaging.security.bundle import OPS_GROUP
from messaging.security.bundle_edit import Content, FirstPolicy, first_content
from messaging.security.keyring import Keyring
from messaging.security.keys import DecryptionKey, SigningKey
from messaging.security.public_part import export_part, part_of
from messaging.security.roots import PINS_FILE, Pins, write_pins
from messaging.security.trust_folder import TrustFolder

__all__ = ["NOW", "POLICY", "Trusting", "first", "keyring_of"]

NOW: Final = 1_800_000_000_000
REALM: Final = "test"
POLICY: Final = FirstPolicy(
    handles={"orders": frozenset({("command", "orders.place_order"), ("request", "orders.get_order")})},
    subscribes={"users": frozenset({"orders.order_placed"})},
)


def keyring_of(identity: str, pins: Pins) -> Keyring:
    """Return fresh keys; an operator's open for the operators' group too."""
    made = Keyring.generate(identity, realm=pins.realm, roots=pins.roots, threshold=pins.threshold)
    return made.with_group(OPS_GROUP, (DecryptionKey.generate(pins.realm),)) if is_operator(identity) else made


@dataclass
class Trusting:
    """A folder with roots, keyrings, and as many bundles as a test signs.

    Attributes:
        path: The folder.
        roots: The private root keys.
        threshold: How many must sign.
        keyrings: By identity.
    """

    path: Path
    roots: list[SigningKey] = field(default_factory=lambda: [SigningKey.generate(REALM), SigningKey.generate(REALM)])
    threshold: int = 1
    keyrings: dict[str, Keyring] = field(default_factory=dict)

    @property
    def pins(self) -> Pins:
        return Pins(realm=REALM, roots=tuple(root.public for root in self.roots), threshold=self.threshold)

    @property
    def folder(self) -> TrustFolder:
        return TrustFolder(self.path)

    def sign(self, *, now_ms: int = NOW) -> None:
        """Sign the draft with as many roots as it takes."""
        for root in self.roots[: self.threshold]:
            self.folder.sign(root, now_ms=now_ms)

    def put(self, content: Content, *, now_ms: int = NOW, life_ms: int = 7 * 24 * 3_600_000) -> None:
        """Put a content in force."""
        self.folder.propose(content, now_ms=now_ms, life_ms=life_ms)
        self.sign(now_ms=now_ms)


def first(
    path: Path,
    identities: Sequence[str] = ("users", "orders", "ops:alice"),
    *,
    policy: FirstPolicy = POLICY,
    threshold: int = 1,
    max_lifetime_s: int = 7 * 24 * 3600,
) -> Trusting:
    """Return a folder whose first bundle is in force."""
    made = Trusting(path, threshold=threshold)
    write_pins(made.pins, path / PINS_FILE)
    made.keyrings = {name: keyring_of(name, made.pins) for name in identities}
    parts = [part_of(keyring) for keyring in made.keyrings.values()]
    made.put(first_content(REALM, parts, policy, now_ms=NOW, max_lifetime_s=max_lifetime_s))
    for keyring in made.keyrings.values():
        made.folder.keep_part(export_part(keyring), part_of(keyring))
    return made
