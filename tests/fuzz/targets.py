"""What the fuzzers call: one input in, and nothing but our own errors out.

Most of an attacker's bytes die at the signature, so the openings also try what only a sender could make: each input
says with its first byte which part of a message it is, and everything around that part is honestly sealed and signed,
in suite 1 (`open`) or suite 2 (`hybrid`).
Keys and clock are fixed: an input that failed once fails again.
"""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from types import SimpleNamespace
from typing import Final
from uuid import UUID

import pytest

from messaging.core.codec import decode_model, unpack
from messaging.core.envelope import CODEC_RAW, Envelope
from messaging.core.fault import Fault
from messaging.core.topology import routing_key
from messaging.errors import ConfigurationError, InvalidPayloadError, SealError
from messaging.runtime.replaying import read_replay
from messaging.security import passphrase, suite
from messaging.security.bundle_format import sign_bundle, verify_bundle
from messaging.security.content import split_fault
from messaging.security.header import parse_header
from messaging.security.keyblock import parse_block
from messaging.security.keyfile import decode_keyring, encode_keyring
from messaging.security.outer import Parts, join_parts, split_parts
from messaging.security.packed import pack
from messaging.security.strict_json import dump_json
from messaging.security.suite import aead_seal
from messaging.security.verified import Verified
from tests.support.arena import GetOrder, OrderPlaced, PlaceOrder, envelope_of
from tests.support.realm import EVERY_KIND, NAMES, Realm, resign

__all__ = ["CLASSIC", "HYBRID", "TARGETS", "Bench", "bundle_target", "keyring_target", "seeds"]

# The cheapest that is accepted: guessing costs a fuzzer time and tells it nothing.
CHEAP: Final = 1 << 10
PASSPHRASE: Final = b"fuzz"


@contextmanager
def _fixed_chance() -> Iterator[None]:
    """Let all that is drawn inside be the same in every process."""
    drawn = 0

    def fresh(size: int) -> bytes:
        nonlocal drawn
        drawn += 1
        return hashlib.shake_256(drawn.to_bytes(8, "big")).digest(size)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(suite, "os", SimpleNamespace(urandom=fresh))
        yield


class Bench:
    """Messages of one suite, honestly made, and what the fuzzers do with them."""

    def __init__(self, number: int) -> None:
        self.suite: Final = number
        self.realm: Final = Realm(suites=(number,))
        self.command: Final = self._message(PlaceOrder())
        self.request: Final = self._message(GetOrder())
        self.event: Final = self._message(OrderPlaced())
        self.reply: Final = self.realm.reply(self.request, payload=b"\x81\xa2ok\xc0", id=UUID(int=2 << 76))
        self.replay: Final = self.realm.replay(self.command, id=UUID(int=3 << 76))
        self.fault: Final = self.realm.fault(self.command)
        accepted = frozenset({number})
        self.orders: Final = self.realm.opener("orders", suites=accepted)
        self.users: Final = self.realm.opener("users", suites=accepted)
        self.signer: Final = self.realm.signer("users")
        self.parts: Final = split_parts(self.command)
        self.openings: Final[tuple[Callable[[bytes], None], ...]] = (
            self._whole, self._header, self._block, self._plaintext, self._inside_a_replay, self._replay_headers,
            self._header_of_another_kind,
        )  # fmt: skip

    @property
    def whole(self) -> dict[str, bytes]:
        """A message of each kind."""
        return {
            "command": self.command,
            "request": self.request,
            "event": self.event,
            "reply": self.reply,
            "replay": self.replay,
            "fault": self.fault,
        }

    def open(self, raw: bytes) -> None:
        """Open what a sender could have made around one input.

        Raises:
            AssertionError: Something else happened than an acceptance or one of our refusals.
        """
        if raw:
            self.openings[raw[0] % len(self.openings)](raw[1:])

    def seeds(self) -> dict[str, bytes]:
        """Return first inputs, by name."""
        opens = {f"whole-{name}": b"\x00" + body for name, body in self.whole.items()}
        opens |= {
            "header": b"\x01" + self.parts.header,
            "block": b"\x02" + self.parts.block,
            "plaintext": b"\x03\x95\x00\x00\x80\xc4\x07\x81\xa4note\xc0\xc4\x00",
            "plaintext-json": b'\x03\x95\x01\x00\x80\xc4\x0c{"note":"x"}\xc4\x00',
            "inside-a-replay": b"\x04" + self.command,
            "replay-headers": b"\x05\x84\xa6reason\xa1x\xa5force\xc3\xa7replays\x01\xa8attempts\x02",
        }
        for place, name in enumerate(("request", "event", "reply", "replay", "fault")):
            opens[f"header-{name}"] = b"\x06" + bytes((place,)) + split_parts(self.whole[name]).header
        return opens

    def _message(self, message: PlaceOrder | GetOrder | OrderPlaced) -> bytes:
        made = self.realm.envelope(**(envelope_of(message) | {"id": UUID(int=1 << 76)}))
        return self.realm.sealer(made.sender).seal(made, routing_key=routing_key(made.name, made.version))

    def _whole(self, body: bytes) -> None:
        for opener in (self.orders, self.users):
            with _refusals():
                opener.decrypt(opener.verify(body, kinds=EVERY_KIND))
            opener.peek_reply(body)
            with _refusals():
                opener.verify_dead(body, service="orders")

    def _header(self, header: bytes) -> None:
        with _refusals():
            parsed = parse_header(header, names=NAMES, suites=frozenset({self.suite}))
            assert parsed.exp > parsed.iat
        self._whole(resign(self.command, self.signer, header=header[:8_192]))

    def _block(self, block: bytes) -> None:
        with _refusals():
            assert parse_block(block[:24_576], suite=self.suite).rows
        self._whole(resign(self.command, self.signer, block=block[:30_000]))

    def _plaintext(self, plaintext: bytes) -> None:
        """Seal the input as the content of a command, and do with it what the consumer does."""
        envelope = self._opened(plaintext)
        if envelope is None:
            return
        with _refusals(InvalidPayloadError):
            decode_model(PlaceOrder, envelope.payload, envelope.codec)
        with _refusals(InvalidPayloadError):
            Fault.from_map(unpack(envelope.payload, envelope.codec))
        with _refusals(InvalidPayloadError):
            _, fault = split_fault(envelope)
            Fault.from_map(fault)

    def _inside_a_replay(self, original: bytes) -> None:
        outer = self.orders.verify(self.replay, kinds=EVERY_KIND)
        # The leaf that the wrapper names is that of whatever is inside: the operator itself may be the attacker.
        with _refusals():
            bound = replace(outer, header=replace(outer.header, bind=split_parts(original).leaf()))
            self._replayed(original, bound)

    def _replayed(self, original: bytes, outer: Verified) -> None:
        for failed_before in (False, True):
            with _refusals():
                self.orders.verify_replayed(original, outer, failed_before=failed_before)
        with _refusals():
            self.users.verify_own_original(original, outer)

    def _replay_headers(self, headers: bytes) -> None:
        envelope = self._opened(b"\x95\x03\x00" + headers + b"\xc4\x01x\xc4\x00")
        if envelope is not None:
            with _refusals():
                assert read_replay(replace(envelope, codec=CODEC_RAW)).attempts >= 0

    def _header_of_another_kind(self, raw: bytes) -> None:
        """Sign the input as the header of a message of whichever kind its first byte says."""
        bases = [self.request, self.event, self.reply, self.replay, self.fault]
        base = bases[raw[0] % len(bases)] if raw else self.event
        sender = self.orders.verify_archived(base).sender
        self._whole(resign(base, self.realm.signer(sender), header=raw[1:8_192]))

    def _opened(self, plaintext: bytes) -> Envelope | None:
        verified = self.orders.verify(self.command, kinds=EVERY_KIND)
        known, _ = self.orders._unwrapping._unwrapped(verified, self.realm.stores["orders"].current, 0.0)
        content_key, _ = known.key.derive(verified.header.salt, verified.header.mid)
        header, block = self.parts.header, self.parts.block
        content = aead_seal(content_key, plaintext, block_digest=suite.sha256(block), header=header)
        parts = Parts(header, block, content, bytes(64), 1, 0, b"")
        signature = self.signer.sign(suite.root_statement(self.signer.kid, 1, parts.leaf()))
        with _refusals():
            return self.orders.decrypt(
                self.orders.verify(join_parts(replace(parts, signature=signature)), kinds=EVERY_KIND)
            )
        return None


with _fixed_chance():
    CLASSIC: Final = Bench(suite.SUITE_1)
    REALM: Final = CLASSIC.realm
    KEYRING: Final = encode_keyring(REALM.keyrings["orders"], passphrase=None)
    SEALED_KEYRING: Final = encode_keyring(REALM.keyrings["orders"], passphrase=PASSPHRASE, cost=CHEAP)
    BUNDLE: Final = REALM.change()
    # Last: what is drawn before it must stay what the kept inputs were made with.
    HYBRID: Final = Bench(suite.SUITE_2)


def bundle_target(raw: bytes) -> None:
    """Verify an input as a bundle, and parse it as one that the root had signed.

    Raises:
        AssertionError: Something else happened than an acceptance or our own refusal.
    """
    roots = [REALM.root.public]
    signed = suite.LABEL + b"bundle\0" + raw
    for made in (raw, _packed_bundle(raw, REALM.root.sign(signed))):
        with _refusals(ConfigurationError):
            bundle = verify_bundle(made, roots=roots, threshold=1, realm="test")
            assert bundle.version > 0


def keyring_target(raw: bytes) -> None:
    """Read an input as a key file, in clear and with a passphrase.

    Raises:
        AssertionError: Something else happened than an acceptance or our own refusal.
    """
    with pytest.MonkeyPatch.context() as patch:
        # A cost within the real bound is only slow.
        patch.setattr(passphrase, "SCRYPT_COST_MAX", CHEAP)
        for secret in (None, PASSPHRASE):
            with _refusals(ConfigurationError):
                assert decode_keyring(raw, passphrase=secret).signing


def _packed_bundle(content: bytes, signature: bytes) -> bytes:
    return pack([content, [[REALM.root.kid, signature]]])


@contextmanager
def _refusals(*also: type[Exception]) -> Iterator[None]:
    """Let our refusals pass, and nothing else."""
    with suppress(SealError, *also):
        yield


def seeds() -> dict[str, dict[str, bytes]]:
    """Return the first inputs of each fuzzer, by name."""
    return {
        "open": CLASSIC.seeds(),
        "hybrid": HYBRID.seeds(),
        "bundle": {"signed": BUNDLE, "content": dump_json(REALM.payload), "small": sign_bundle({}, [REALM.root])},
        "keyring": {"clear": KEYRING, "sealed": SEALED_KEYRING},
    }


TARGETS: Final[dict[str, Callable[[bytes], None]]] = {
    "open": CLASSIC.open,
    "hybrid": HYBRID.open,
    "bundle": bundle_target,
    "keyring": keyring_target,
}
