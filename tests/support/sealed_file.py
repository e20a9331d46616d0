"""Sealed messages of a ceremony's realm, as files."""

from dataclasses import replace
from pathlib import Path
from uuid import UUID

from messaging.ambient import real_ambient
from messaging.core.codec import pack_plain
from messaging.core.envelope import CODEC_JSON, CODEC_RAW, Envelope, Kind
from messaging.core.topology import Names, routing_key
from messaging.security.keyfile import load_keyring
from messaging.security.seal import Sealer
from messaging.security.trust import open_trust
from tests.support.ceremony import Ceremony

__all__ = ["MESSAGE_ID", "sealed_file"]

MESSAGE_ID = UUID(int=7)


def sealed_file(ceremony: Ceremony, *, codec: int = CODEC_JSON, headers: dict[str, str] | None = None) -> Path:
    """Write a command of web to shop as it is on the wire."""
    ambient = real_ambient()
    keyring = load_keyring(ceremony.keys / "web.key")
    trust = open_trust(keyring, ceremony.trust / "trust.bundle", ambient=ambient)
    now_ms = ambient.now_ms()
    envelope = Envelope.first(
        id=MESSAGE_ID,
        kind=Kind.COMMAND,
        name="shop.place_order",
        version=1,
        sender="web",
        issued_at_ms=now_ms,
        expires_at_ms=now_ms + 60_000,
        payload=b"\xff\x00" if codec == CODEC_RAW else pack_plain({"total_cents": 4200}, codec),
        codec=codec,
    )
    if headers:
        envelope = replace(envelope, headers=headers)
    sealer = Sealer(keyring, trust, Names("messaging"), ambient=ambient)
    path = ceremony.home / "message.bin"
    path.write_bytes(sealer.seal(envelope, routing_key=routing_key("shop.place_order", 1)))
    return path
