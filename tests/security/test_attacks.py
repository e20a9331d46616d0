"""What an attacker can do with bytes: at this level nothing but be refused, with one family of errors, at once."""

import gc
import json
import logging
import pickle
import time
import traceback
import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Final

import msgpack
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from messaging.core.envelope import Kind
from messaging.errors import Disposition, MalformedError, MessagingError, SealError, SignatureError, UnknownKeyError
from messaging.security import suite
from messaging.security.development import identity_entry
from messaging.security.header import Address
from messaging.security.keyring import Keyring
from messaging.security.open import Opener
from messaging.security.outer import Parts, join_parts, split_parts
from tests.support.realm import EVERY_KIND, START_MS, Realm, alter_header, resign

PAYLOAD: Final = b"the-secret-payload"
COMMAND_OF_ANOTHER_VALUE: Final[dict[int, Any]] = {
    2: "orders.place_order/2",
    8: b"\x09" * 16,
    9: START_MS + 1,
    10: START_MS + 5000,
    11: b"\x08" * 16,
    14: b"\x07" * 16,
    15: b"\x06" * 32,
    16: {"bv": 9},
}


@pytest.fixture(scope="module")
def realm() -> Realm:
    return Realm()


@pytest.fixture(scope="module")
def body(realm: Realm) -> bytes:
    sealer = realm.sealer("users")
    batch = [sealer.prepare(realm.envelope(payload=PAYLOAD), routing_key="orders.place_order.v1") for _ in range(3)]
    return bytes(sealer.sign(batch)[1])


def accepts(realm: Realm, raw: bytes, name: str = "orders") -> bool:
    """Tell whether a message would run; anything but one of our own errors fails the test."""
    opener = realm.opener(name)
    try:
        opener.decrypt(opener.verify(raw, kinds=EVERY_KIND))
    except SealError:
        return False
    return True


def refusal(realm: Realm, raw: bytes) -> SealError:
    opener = realm.opener("orders")
    with pytest.raises(SealError) as caught:
        opener.decrypt(opener.verify(raw, kinds=EVERY_KIND))
    return caught.value


def test_the_message_under_attack_is_good(realm: Realm, body: bytes) -> None:
    assert accepts(realm, body)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\x00",
        bytes(range(256)) * 4,
        json.dumps({"order_id": 1}).encode(),
        msgpack.packb({"order_id": 1}),
        b"\x98" + b"\x91" * 4_000,
        b"\x98\x01" + b"\xdd\xff\xff\xff\xff" * 3,
    ],
    ids=["empty", "one byte", "noise", "plain JSON", "plain msgpack", "nested", "huge claims"],
)
def test_what_is_no_sealed_message_is_malformed(realm: Realm, raw: bytes) -> None:
    assert type(refusal(realm, raw)) is MalformedError


def test_no_cut_is_accepted(realm: Realm, body: bytes) -> None:
    assert not any(accepts(realm, body[:end]) for end in range(len(body)))


def test_no_flipped_bit_is_accepted(realm: Realm, body: bytes) -> None:
    for at in range(len(body)):
        for bit in (0, 3, 7):
            altered = body[:at] + bytes([body[at] ^ 1 << bit]) + body[at + 1 :]
            assert not accepts(realm, altered), f"bit {bit} of byte {at}"


def test_no_byte_more_is_accepted(realm: Realm, body: bytes) -> None:
    assert type(refusal(realm, body + b"\x00")) is MalformedError
    assert not accepts(realm, body + body)


@pytest.mark.parametrize(("at", "value"), COMMAND_OF_ANOTHER_VALUE.items())
def test_another_valid_value_in_the_header_breaks_the_signature(
    realm: Realm, body: bytes, at: int, value: object
) -> None:
    parts = split_parts(body)
    changes = {at: value, 7: "orders.place_order.v2"} if at == 2 else {at: value}

    error = refusal(realm, join_parts(replace(parts, header=alter_header(parts.header, changes))))

    assert type(error) is SignatureError


@pytest.mark.parametrize("part", ["header", "block", "content", "signature"])
def test_parts_of_two_good_messages_do_not_mix(realm: Realm, part: str) -> None:
    one, other = split_parts(realm.sealed()), split_parts(realm.sealed())

    mixed = join_parts(replace(one, **{part: getattr(other, part)}))

    assert type(refusal(realm, mixed)) is SignatureError


def test_places_in_the_batch_do_not_mix(realm: Realm, body: bytes) -> None:
    parts = split_parts(body)

    wrong = [replace(parts, index=0), replace(parts, size=4), replace(parts, path=parts.path[::-1])]

    assert [type(refusal(realm, join_parts(each))) for each in wrong] == [SignatureError] * 3


@pytest.mark.parametrize("signature", [bytes(64), b"\xff" * 64])
def test_a_made_up_signature_does_not_hold(realm: Realm, body: bytes, signature: bytes) -> None:
    assert type(refusal(realm, join_parts(replace(split_parts(body), signature=signature)))) is SignatureError


def test_a_signature_of_somebody_else_does_not_hold(realm: Realm, body: bytes) -> None:
    error = refusal(realm, resign(body, realm.signer("billing")))

    assert (type(error), error.disposition) == (SignatureError, Disposition.UNAUTHENTIC)


def test_a_name_with_the_key_of_another_is_unknown(realm: Realm, body: bytes) -> None:
    error = refusal(realm, resign(body, realm.signer("billing"), fields={4: realm.signer("billing").kid}))

    assert type(error) is UnknownKeyError


def test_whoever_strips_a_signature_and_signs_anew_gains_nothing(realm: Realm) -> None:
    # billing may send as well: its signature holds, and the content, bound to users by the wrap, does not open.
    rule = {"from": "billing", "kind": "command", "name": "orders.*", "to": "orders"}
    own = Realm(realm.clock)
    own.publish(lambda payload: payload["policy"]["send"].append(rule))
    stolen = own.sealed(payload=PAYLOAD)
    signer = own.signer("billing")

    error = refusal(own, resign(stolen, signer, fields={3: "billing", 4: signer.kid}))

    assert error.disposition is Disposition.CONTENT


def test_a_subscriber_cannot_speak_under_the_shared_data_key(realm: Realm) -> None:
    # users can open the event, so it knows the key and can encrypt whatever it likes; it cannot sign as orders.
    event = realm.sealed(kind=Kind.EVENT, name="orders.order_placed", sender="orders")
    parts = split_parts(event)
    opener = realm.opener("users")
    verified = opener.verify(event, kinds=EVERY_KIND)
    opener.decrypt(verified)
    ((_, known, _),) = opener._unwrapping._known._entries.values()
    key, _ = known.key.derive(verified.header.salt, verified.header.mid)
    content = suite.aead_seal(
        key, b"\x95\x00\x00\x80\xc4\x00\xc4\x00", block_digest=suite.sha256(parts.block), header=parts.header
    )

    forged = join_parts(replace(parts, content=content))

    with pytest.raises(SignatureError):
        realm.opener("billing").verify(forged, kinds=EVERY_KIND)


def test_a_ciphertext_with_two_meanings_has_one_commitment(realm: Realm) -> None:
    # Two data keys in one block and one ciphertext: only the reader whose key the header commits to may open it.
    event = realm.sealed(kind=Kind.EVENT, name="orders.order_placed", sender="orders")
    parts = split_parts(event)
    dek_id, made_at_ms, rows = msgpack.unpackb(parts.block)
    billing = next(iter(realm.keyrings["billing"].decryption.values()))
    signer = realm.signer("orders")
    info = suite.wrap_info(
        sender="orders", skid=signer.kid, rid="billing", rkid=billing.kid, dek_id=dek_id, made_at_ms=made_at_ms
    )
    other = [[rid, rkid, billing.public.wrap(b"\x01" * 32, info) if rid == "billing" else w] for rid, rkid, w in rows]
    forged = resign(event, signer, block=msgpack.packb([dek_id, made_at_ms, other]))

    with pytest.raises(SealError, match="commitment"):
        realm.opener("billing").decrypt(realm.opener("billing").verify(forged, kinds=EVERY_KIND))


def bombs(realm: Realm) -> Iterator[tuple[str, bytes]]:
    parts = split_parts(realm.sealed())
    address = Address(1, Kind.COMMAND, "orders.x/1", "users", bytes(8), "orders", "messaging.commands", "orders.x.v1")
    opening = address.pack()
    extensions = b"\xdf" + (560_000).to_bytes(4, "big") + b"\xa1k\x01" * 560_000
    yield "header of 560 000 extensions", join_parts(replace(parts, header=opening + extensions))
    yield (
        "recipient of 4 MB",
        join_parts(replace(parts, block=msgpack.packb([bytes(16), 1, [["r" * 4_000_000, bytes(8), bytes(80)]]]))),
    )
    yield "path of 4 MB", join_parts(replace(parts, size=2, path=bytes(4_000_000)))
    yield "4 MB of arrays", b"\x98\x01" + b"\x90" * 4_000_000
    yield "arrays in the header", join_parts(replace(parts, header=b"\xdc\x00\x11" + b"\x91" * 4_093))
    yield "an array that claims 4 G items", join_parts(replace(parts, header=b"\xdd\xff\xff\xff\xff" * 800))
    yield "body beyond the cap", bytes(64 * 1024 * 1024)


def test_bombs_are_refused_in_no_time_and_without_memory(realm: Realm) -> None:
    opener = realm.opener("orders")
    for name, raw in bombs(realm):
        # The least of some: other threads allocate too, and a busy machine charges us for its own work.
        costs = [cost_of_refusal(opener, raw) for _ in range(5)]

        # Parts up to their limits are copied, nothing more; 50 ms of our own time leaves room for the tracing.
        assert min(peak for peak, _ in costs) < 300_000, name
        assert min(took_s for _, took_s in costs) < 0.05, name


def cost_of_refusal(opener: Opener, raw: bytes) -> tuple[int, float]:
    """Return the most memory that it took, and our own CPU seconds."""
    gc.collect()
    tracemalloc.start()
    began_s = time.thread_time()
    with pytest.raises(MalformedError):
        opener.verify(raw, kinds=EVERY_KIND)
    took_s = time.thread_time() - began_s
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return peak, took_s


def test_a_key_block_bomb_of_its_own_sender_is_bounded_too(realm: Realm) -> None:
    block = b"\x93\xc4\x10" + bytes(16) + b"\x01" + b"\x91" * 20_000

    error = refusal(realm, resign(realm.sealed(), realm.signer("users"), block=block))

    assert (type(error), error.disposition) == (MalformedError, Disposition.CONTENT)


@given(raw=st.binary(max_size=400))
def test_noise_meets_our_errors_alone(raw: bytes) -> None:
    assert not accepts(SHARED, raw)


@given(raw=st.binary(max_size=200))
def test_noise_behind_a_good_beginning_meets_our_errors_alone(raw: bytes) -> None:
    assert not accepts(SHARED, b"\x98\x01" + raw)


LEAVES = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text(max_size=9)
    | st.binary(max_size=40)
)
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=12,
)


@given(values=st.lists(VALUES, max_size=10))
def test_arrays_of_anything_meet_our_errors_alone(values: list[object]) -> None:
    assert not accepts(SHARED, msgpack.packb(values))


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(changes=st.dictionaries(st.integers(0, 16), VALUES, min_size=1, max_size=3))
def test_headers_of_anything_under_a_good_signature_meet_our_errors_alone(changes: dict[int, object]) -> None:
    raw = resign(GOOD, SHARED.signer("users"), fields=changes)

    # The header is authenticated with the content, so even a valid other value does not open.
    assert accepts(SHARED, raw) is (split_parts(raw).header == split_parts(GOOD).header)


@given(block=st.binary(max_size=300), content=st.binary(max_size=300))
def test_blocks_and_contents_of_anything_under_a_good_signature_meet_our_errors_alone(
    block: bytes, content: bytes
) -> None:
    assert not accepts(SHARED, resign(GOOD, SHARED.signer("users"), block=block, content=content))


@given(rows=VALUES)
def test_key_blocks_of_anything_under_a_good_signature_meet_our_errors_alone(rows: object) -> None:
    block = msgpack.packb([bytes(16), START_MS, rows])

    assert not accepts(SHARED, resign(GOOD, SHARED.signer("users"), block=block))


SHARED: Final = Realm()
GOOD: Final = SHARED.sealed()


def test_what_is_told_about_a_refusal_holds_no_secret(realm: Realm, body: bytes) -> None:
    raw_keys = [key.secret() for keyring in realm.keyrings.values() for key in keyring.signing]
    raw_keys += [key.secret() for keyring in realm.keyrings.values() for key in keyring.decryption.values()]
    secrets = [PAYLOAD, *raw_keys, *(raw.hex().encode() for raw in raw_keys)]
    signer = realm.signer("users")
    attempts = [
        body[:-1],
        resign(body, realm.signer("billing")),
        resign(body, signer, fields={15: bytes(32)}),
        resign(body, signer, content=b"x" * 40),
        resign(body, signer, block=b"\x93"),
    ]
    told: list[bytes] = []

    for raw in attempts:
        error = refusal(realm, raw)
        told += [
            "".join(traceback.format_exception(error)).encode(),
            repr(error).encode(),
            repr(error.evidence).encode(),
        ]
    told += [repr(realm.opener("orders")).encode(), repr(realm.keyrings).encode(), repr(realm.sealer("users")).encode()]

    assert not [secret for secret in secrets for text in told if secret in text]


def test_no_private_key_can_be_pickled(realm: Realm) -> None:
    for keyring in realm.keyrings.values():
        for thing in (keyring, *keyring.signing, *keyring.decryption.values()):
            with pytest.raises(TypeError):
                pickle.dumps(thing)


def test_the_library_logs_nothing_here(realm: Realm, body: bytes, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        accepts(realm, body)
        accepts(realm, body[:-1])

    assert caplog.records == []


class Rotation:
    """users changes its signing key and orders its decryption key; some replicas have the new bundle, some not."""

    def __init__(self) -> None:
        self.realm = Realm()
        self.fresh = {name: self.realm.new_keyring(name) for name in ("users", "orders")}
        for name in self.fresh:
            self.realm.keyrings[name] = self._both(name)

    def _both(self, name: str) -> Keyring:
        old, new = self.realm.keyrings[name], self.fresh[name]
        return replace(old, signing=(*old.signing, *new.signing), decryption={**old.decryption, **new.decryption})

    def step(self, *states: tuple[str, str]) -> bytes:
        def edit(payload: dict[str, Any]) -> None:
            for (name, part), (old, new) in zip((("users", "sign"), ("orders", "enc")), states, strict=True):
                listed = payload["services"][name][part]
                if len(listed) == 1:
                    listed.extend(identity_entry(self.fresh[name])[part])
                listed[0]["state"], listed[1]["state"] = old, new

        return self.realm.change(edit)


def test_a_rotation_loses_nothing_whoever_is_ahead() -> None:
    rotation = Rotation()
    realm = rotation.realm
    announced = rotation.step(("active", "next"), ("active", "next"))
    switched = rotation.step(("retiring", "active"), ("retiring", "active"))
    for store in realm.stores.values():
        store.replace(announced)
    kept: list[bytes] = []

    for ahead in ("users", "orders"):
        kept.append(realm.sealed())
        realm.stores[ahead].replace(switched)
        kept.append(realm.sealed())
        assert all(accepts(realm, body) for body in kept)

    assert len({split_parts(body).header for body in kept}) == 4


def test_a_message_without_a_signature_is_no_message(realm: Realm, body: bytes) -> None:
    parts = split_parts(body)

    with pytest.raises(MessagingError):
        realm.opener("orders").verify(
            join_parts(Parts(parts.header, parts.block, parts.content, b"", 1, 0, b"")), kinds=EVERY_KIND
        )
