"""What an authenticated sender can do wrong, or do on purpose: wraps, commitments, ciphertexts, payloads."""

import os
import struct
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final
from uuid import uuid4

import msgpack
import pytest

from messaging.core.envelope import CODEC_JSON
from messaging.core.topology import routing_key
from messaging.security import suite
from messaging.security.content import pack_content, split_fault
from messaging.security.header import Address, pack_header
from messaging.security.keyblock import KeyBlock, Row, pack_block, parse_block
from messaging.security.outer import Parts, join_parts, split_parts
from messaging.security.suite import DataKey, aead_open, aead_seal, sha256, wrap_info
from tests.support.arena import MARKER, Arena, OrderPlaced, PlaceOrder
from tests.support.collision import colliding
from tests.support.exhibits import Exhibits
from tests.support.measuring import measured
from tests.support.realm import DAY_MS, EVERY_KIND, NAMES, resign

FLAT_BYTES: Final = 4 * 1024 * 1024


def reblocked(arena: Arena, edit: Callable[[Row], Row]) -> bytes:
    """Return a command whose rows the sender changed before it signed."""
    body = arena.sealed()
    block = parse_block(split_parts(body).block)
    changed = KeyBlock(block.dek_id, block.made_at_ms, tuple(edit(row) for row in block.rows))
    return resign(body, arena.realm.signer("users"), block=pack_block(changed))


def fault_of(arena: Arena, letter: bytes, reader: str = "orders") -> dict[str, Any]:
    """Return the fault in a dead letter, as the failing service reads it."""
    opener = arena.realm.opener(reader)
    _, fault = split_fault(opener.decrypt(opener.verify_archived(letter)))
    return fault


@pytest.mark.attack(41)
async def test_a_flipped_wrap_is_buried(arena: Arena) -> None:
    bodies = [
        reblocked(arena, lambda row, at=at: replace(row, wrapped=flipped(row.wrapped, at)))  # type: ignore[misc]
        for at in (0, 31, 32, 63, 64, 79)
    ]

    outcome = await arena.struck(*bodies)

    outcome.assert_buried(times=6)
    assert {fault_of(arena, letter)["error"] for letter in outcome.dead} == {"DecryptionError"}


@pytest.mark.attack(41)
async def test_all_ways_to_fail_read_alike(arena: Arena) -> None:
    # An error that tells how far an attempt came is an oracle.
    zero_share = reblocked(arena, lambda row: replace(row, wrapped=bytes(32) + row.wrapped[32:]))
    foreign_share = reblocked(arena, lambda row: replace(row, wrapped=os.urandom(80)))
    flipped_tag = reblocked(arena, lambda row: replace(row, wrapped=flipped(row.wrapped, 79)))
    body = arena.sealed()
    parts = split_parts(body)
    flipped_content = resign(body, arena.realm.signer("users"), content=flipped(parts.content, 0))

    outcome = await arena.struck(zero_share, foreign_share, flipped_tag, flipped_content)

    outcome.assert_buried(times=4)
    assert len({fault_of(arena, letter)["reason"] for letter in outcome.dead}) == 1


@pytest.mark.attack(41)
async def test_a_wrap_for_other_facts_is_buried(arena: Arena) -> None:
    def wrapped_for(**other: Any) -> bytes:
        body = arena.sealed()
        block = parse_block(split_parts(body).block)
        row = block.rows[1]
        assert row.rid == "orders"
        facts = {
            "sender": "users",
            "skid": arena.realm.signer("users").kid,
            "rid": row.rid,
            "rkid": row.rkid,
            "dek_id": block.dek_id,
            "made_at_ms": block.made_at_ms,
        }
        public = arena.realm.keyrings["orders"].decryption[row.rkid].public
        wrapped = public.wrap(os.urandom(32), wrap_info(**(facts | other)))  # type: ignore[arg-type]
        changed = KeyBlock(block.dek_id, block.made_at_ms, (block.rows[0], replace(row, wrapped=wrapped)))
        return resign(body, arena.realm.signer("users"), block=pack_block(changed))

    outcome = await arena.struck(
        wrapped_for(),
        wrapped_for(sender="billing"),
        wrapped_for(skid=bytes(8)),
        wrapped_for(rid="billing"),
        wrapped_for(dek_id=bytes(16)),
        wrapped_for(made_at_ms=1),
    )

    outcome.assert_buried(times=6)


@pytest.mark.attack(41)
async def test_a_wrapped_key_of_another_length_is_buried(arena: Arena) -> None:
    def with_wrap(wrapped: bytes) -> bytes:
        body = arena.sealed()
        fields: list[Any] = msgpack.unpackb(split_parts(body).block)
        fields[2][1][2] = wrapped
        return resign(body, arena.realm.signer("users"), block=bytes(msgpack.packb(fields)))

    def with_secret(size: int) -> bytes:
        body = arena.sealed()
        block = parse_block(split_parts(body).block)
        row = block.rows[1]
        info = wrap_info(
            sender="users",
            skid=arena.realm.signer("users").kid,
            rid=row.rid,
            rkid=row.rkid,
            dek_id=block.dek_id,
            made_at_ms=block.made_at_ms,
        )
        return with_wrap(arena.realm.keyrings["orders"].decryption[row.rkid].public.wrap(os.urandom(size), info))

    outcome = await arena.struck(
        *(with_wrap(os.urandom(size)) for size in (0, 16, 79, 81)), *(with_secret(size) for size in (0, 16, 31, 33, 64))
    )

    outcome.assert_buried(times=9)


@pytest.mark.attack(41)
@pytest.mark.parametrize("made_ms", [-16 * 60_000, 61_000, -DAY_MS])
async def test_a_data_key_of_another_time_is_buried(arena: Arena, made_ms: int) -> None:
    sealer = arena.realm.sealer("users")
    sealer.prepare(arena.envelope(PlaceOrder()), routing_key=routing_key("orders.place_order", 1))
    (known,) = sealer._data_keys._keys.values()
    block = parse_block(known.block)
    older = KeyBlock(block.dek_id, block.made_at_ms + made_ms, block.rows)
    known.block, known.block_digest = pack_block(older), sha256(pack_block(older))

    outcome = await arena.struck(
        sealer.seal(arena.envelope(PlaceOrder()), routing_key=routing_key("orders.place_order", 1))
    )

    outcome.assert_buried()


@pytest.mark.attack(41)
async def test_a_command_without_a_row_for_its_owner_is_refused(arena: Arena) -> None:
    body = arena.sealed()
    block = parse_block(split_parts(body).block)
    alone = KeyBlock(block.dek_id, block.made_at_ms, block.rows[:1])
    without = resign(body, arena.realm.signer("users"), block=pack_block(alone))

    outcome = await arena.struck(without)

    assert alone.rows[0].rid == "group:ops"
    outcome.assert_refused("audience", without)


@pytest.mark.attack(41)
async def test_a_command_without_the_row_that_escrow_demands_is_refused(arena: Arena) -> None:
    def no_escrow(payload: dict[str, Any]) -> None:
        payload["policy"]["escrow"]["command"] = False

    arena.realm.publish(no_escrow, to="users")
    body = arena.sealed()

    outcome = await arena.struck(body)

    outcome.assert_refused("audience", body)


def flipped(raw: bytes, at: int) -> bytes:
    """Return the bytes with one bit changed."""
    return raw[:at] + bytes((raw[at] ^ 1,)) + raw[at + 1 :]


@pytest.mark.attack(43)
async def test_a_wrong_commitment_is_refused_before_the_cipher_runs(
    arena: Arena, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = arena.sealed()
    (await arena.struck(arena.sealed())).assert_ran()
    decrypted: list[bytes] = []

    def opened(key: bytes, ciphertext: bytes, *, block_digest: bytes, header: bytes) -> bytes:
        decrypted.append(ciphertext)
        return aead_open(key, ciphertext, block_digest=block_digest, header=header)

    monkeypatch.setattr(suite, "aead_open", opened)
    attacked = resign(body, arena.realm.signer("users"), fields={15: os.urandom(32)})

    outcome = await arena.struck(attacked)

    assert split_parts(attacked).content not in decrypted
    outcome.assert_buried()


class TwoFaced:
    """An event of orders that one ciphertext, under two data keys, means to say differently to users and to billing."""

    def __init__(self, arena: Arena) -> None:
        realm, now_ms = arena.realm, arena.clock.now_ms
        signer = realm.signer("orders")
        self.keys = {"users": os.urandom(32), "billing": os.urandom(32)}
        dek_id, salt, mid = os.urandom(16), os.urandom(16), uuid4().bytes
        rows = []
        for rid, secret in self.keys.items():
            ((rkid, key),) = realm.keyrings[rid].decryption.items()
            info = wrap_info(sender="orders", skid=signer.kid, rid=rid, rkid=rkid, dek_id=dek_id, made_at_ms=now_ms)
            rows.append(Row(rid, rkid, key.public.wrap(secret, info)))
        ((rkid, group),) = [(realm.group_key.kid, realm.group_key)]
        info = wrap_info(sender="orders", skid=signer.kid, rid="group:ops", rkid=rkid, dek_id=dek_id, made_at_ms=now_ms)
        rows.append(Row("group:ops", rkid, group.public.wrap(self.keys["users"], info)))
        self.block = pack_block(KeyBlock(dek_id, now_ms, tuple(sorted(rows))))
        derived = {rid: DataKey(secret).derive(salt, mid) for rid, secret in self.keys.items()}
        address = Address(
            suite=1,
            kind=arena.envelope(OrderPlaced()).kind,
            typ="orders.order_placed/1",
            sender="orders",
            skid=signer.kid,
            aud="event:orders.order_placed",
            ex=NAMES.events,
            rk=routing_key("orders.order_placed", 1),
        )
        self.header = pack_header(
            address.pack(),
            mid=mid,
            iat=now_ms,
            exp=now_ms + DAY_MS,
            corr=mid,
            bind=None,
            rto=None,
            salt=salt,
            cmt=derived["users"][1],
            ext={"bv": realm.stores["orders"].current.version},
        )
        self.aad = suite._AAD + sha256(self.block) + self.header
        self.content_keys = {rid: key for rid, (key, _) in derived.items()}
        payload = arena.envelope(OrderPlaced(note="for users")).payload
        plain = pack_content(codec=0, headers={}, payload=payload)[:-2]
        # The free block of the collision, and what fills the blocks up, lies in the padding.
        padding = -(len(plain) + 2) % 16
        plain += b"\xc4" + bytes((padding + 16,)) + bytes(padding)
        self.content = colliding(self.content_keys["users"], self.content_keys["billing"], content=plain, aad=self.aad)
        parts = Parts(self.header, self.block, self.content, bytes(64), 1, 0, b"")
        signature = signer.sign(suite.root_statement(signer.kid, 1, parts.leaf()))
        self.body = join_parts(replace(parts, signature=signature))

    def opens_under(self, rid: str) -> bytes:
        """Return what the bare cipher says under the key of a reader, the commitment aside."""
        digest = sha256(self.block)
        return aead_open(self.content_keys[rid], self.content, block_digest=digest, header=self.header)


@pytest.mark.attack(44)
async def test_one_ciphertext_does_not_mean_two_things(arena: Arena) -> None:
    event = TwoFaced(arena)

    to_users = await arena.struck(event.body, service="users", part="events")
    to_billing = await arena.struck(event.body, service="billing", part="events")

    # The collision is real: the bare cipher opens it for both, to different contents.
    assert event.opens_under("users") != event.opens_under("billing")
    to_users.assert_ran()
    assert to_users.ran[0].message.note == "for users"
    to_billing.assert_buried()
    assert fault_of(arena, to_billing.dead[0], "billing")["error"] == "DecryptionError"


@pytest.mark.attack(45)
@pytest.mark.parametrize("at", [-1, -16, 0])
async def test_a_flipped_tag_or_ciphertext_is_buried(arena: Arena, at: int) -> None:
    body = arena.sealed()
    content = split_parts(body).content
    place = at % len(content)

    outcome = await arena.struck(resign(body, arena.realm.signer("users"), content=flipped(content, place)))

    outcome.assert_buried()


@pytest.mark.attack(45)
@pytest.mark.parametrize("size", [0, 1, 15, 16])
async def test_a_ciphertext_that_is_too_short_is_buried(arena: Arena, size: int) -> None:
    body = arena.sealed()

    outcome = await arena.struck(resign(body, arena.realm.signer("users"), content=split_parts(body).content[:size]))

    outcome.assert_buried()


def zstd_bomb(unpacked_bytes: int) -> bytes:
    """Return a zstd frame of blocks that each say: this byte, 128 KiB of it (RFC 8878, 3.1.1.2)."""
    size = 128 * 1024
    count = unpacked_bytes // size
    blocks = b"".join(struct.pack("<I", size << 3 | 0b010 | (at == count - 1))[:3] + b"A" for at in range(count))
    # No content size, a window of 1 MiB.
    return b"\x28\xb5\x2f\xfd\x00\x50" + blocks


def sealed_plaintext(arena: Arena, plaintext: bytes) -> bytes:
    """Return a command of users whose content is these very bytes, honestly encrypted and signed."""
    sealer = arena.realm.sealer("users")
    unsigned = sealer.prepare(arena.envelope(PlaceOrder()), routing_key=routing_key("orders.place_order", 1))
    (known,) = sealer._data_keys._keys.values()
    fields: list[Any] = msgpack.unpackb(unsigned.header)
    content_key, _ = known.key.derive(fields[14], fields[8])
    content = aead_seal(content_key, plaintext, block_digest=known.block_digest, header=unsigned.header)
    parts = Parts(unsigned.header, unsigned.block, content, bytes(64), 1, 0, b"")
    signer = arena.realm.signer("users")
    return join_parts(replace(parts, signature=signer.sign(suite.root_statement(signer.kid, 1, parts.leaf()))))


@pytest.mark.attack(47)
@pytest.mark.parametrize("compression", [1, 2, 127])
async def test_a_decompression_bomb_is_buried_in_bounded_memory(arena: Arena, compression: int) -> None:
    bomb = zstd_bomb(4 * 1024**3)
    plaintext = b"\x95\x00" + bytes((compression,)) + b"\x80" + bytes(msgpack.packb(bomb)) + b"\xc4\x00"
    body = sealed_plaintext(arena, plaintext)

    with measured() as cost:
        outcome = await arena.struck(body)

    outcome.assert_buried()
    assert cost.peak_bytes < FLAT_BYTES


@pytest.mark.attack(47)
async def test_a_plaintext_made_by_hand_is_accepted_when_it_is_right(arena: Arena) -> None:
    # Or the attacks that use it would prove nothing.
    payload = arena.envelope(PlaceOrder(note="by hand")).payload

    outcome = await arena.struck(sealed_plaintext(arena, pack_content(codec=0, headers={}, payload=payload)))

    outcome.assert_ran()


@pytest.mark.attack(48)
@pytest.mark.parametrize(
    "plaintext",
    [
        b"",
        b"\x95",
        b"\x94\x00\x00\x80\xc4\x00",
        b"\x95\x00\x00\xc0\xc4\x00\xc4\x00",
        b"\x95\x00\x00\x80\xa1x\xc4\x00",
        b"\x95\x04\x00\x80\xc4\x00\xc4\x00",
        b"\x95\x00\x00\x80\xc4\x00\xc4\x00trailing",
        b"\x95\x00\x00\xdf\xff\xff\xff\xff",
        b"\x95\x00\x00" + b"\x81\xa1a" * 2_000 + b"\xc0\xc4\x00\xc4\x00",
        b"\x95\x00\x00\x81\x01\x02\xc4\x00\xc4\x00",
        b"\x95\x00\x00\x80\xc6\xff\xff\xff\xff",
        b"\x95\x00\x00\x81\xa1a\xd6\xff\x00\x00\x00\x00\xc4\x00\xc4\x00",
    ],
)
async def test_a_content_of_another_form_is_buried(arena: Arena, plaintext: bytes) -> None:
    body = sealed_plaintext(arena, plaintext)

    with measured() as cost:
        outcome = await arena.struck(body)

    outcome.assert_buried()
    assert cost.peak_bytes < FLAT_BYTES


PAYLOADS: Final[dict[str, tuple[int, bytes]]] = {
    "wrong type": (0, bytes(msgpack.packb({"note": {MARKER: MARKER}}))),
    "bytes": (0, bytes(msgpack.packb({"note": MARKER.encode() + b"\xff"}))),
    "no map": (0, bytes(msgpack.packb([MARKER]))),
    "a number": (0, b"\x07"),
    "nothing": (0, b""),
    "junk": (0, b"\xc1" + MARKER.encode()),
    "trailing": (0, bytes(msgpack.packb({"note": MARKER})) + b"\x00"),
    "deep": (0, b"\x81\xa4note" + b"\x91" * 100_000 + b"\xc0"),
    "huge claim": (0, b"\x81\xa4note\xdd\xff\xff\xff\xff"),
    "NaN": (0, bytes(msgpack.packb({"note": float("nan")}))),
    "timestamp": (0, b"\x81\xa4note\xd6\xff\x00\x00\x00\x00"),
    "other JSON": (CODEC_JSON, b'{"note": NaN}'),
    "JSON of infinities": (CODEC_JSON, b'{"note": -Infinity}'),
    "deep JSON": (CODEC_JSON, b'{"note": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
    "bad JSON": (CODEC_JSON, b'{"note": "' + MARKER.encode()),
    "JSON of big numbers": (CODEC_JSON, b'{"note": ' + b"9" * 100_000 + b"}"),
    "Protobuf": (2, b"\x0a\x03abc"),
    "raw": (3, MARKER.encode()),
}


@pytest.mark.attack(48)
@pytest.mark.parametrize("case", PAYLOADS)
async def test_a_payload_that_breaks_its_schema_is_buried_once(arena: Arena, exhibits: Exhibits, case: str) -> None:
    codec, payload = PAYLOADS[case]
    body = arena.sealed(payload=payload, codec=codec)

    with measured() as cost:
        outcome = await arena.struck(body)
    again = await arena.struck(body)

    outcome.assert_buried()
    assert cost.peak_bytes < 2 * FLAT_BYTES
    fault = fault_of(arena, outcome.dead[0])
    assert fault["error"] == "InvalidPayloadError"
    assert MARKER not in repr(fault)
    # What a fault says reaches its origin and the operators: no value of the payload is among it.
    exhibits.show(fault)
    again.assert_skipped("duplicate")


@pytest.mark.attack(48)
async def test_unknown_fields_of_a_payload_are_ignored(arena: Arena) -> None:
    payload = bytes(msgpack.packb({"note": "known", "more": [float("nan"), {"deep": [1]}]}))

    outcome = await arena.struck(arena.sealed(payload=payload))

    outcome.assert_ran()
    assert outcome.ran[0].message == PlaceOrder(note="known")
    assert outcome.ran[0].context.envelope.kind in EVERY_KIND
