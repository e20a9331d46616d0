"""Signatures that are not the sender's, or not over these bytes."""

from dataclasses import replace
from typing import Any, Final

import pytest

from messaging.security import suite
from messaging.security.content import pack_content
from messaging.security.keyblock import parse_block
from messaging.security.outer import Parts, join_parts, split_parts
from messaging.security.suite import DataKey, aead_seal, sha256, wrap_info
from tests.support.arena import Arena, Charge, OrderPlaced, PlaceOrder
from tests.support.realm import resign

# The order of the curve's group: S and S + L are one scalar, and only S may be accepted (RFC 8032, 5.1.7).
GROUP_ORDER: Final = 2**252 + 27742317777372353535851937790883648493
SIGNATURE_AT: Final = -4 - 64


def with_signature(body: bytes, signature: bytes) -> bytes:
    """Return a single message with another signature of whatever length."""
    return body[: SIGNATURE_AT - 2] + b"\xc4" + bytes((len(signature),)) + signature + body[-4:]


@pytest.mark.attack(28)
async def test_a_signature_of_zeros_or_of_small_order_does_not_hold(arena: Arena) -> None:
    body = arena.sealed()
    neutral = b"\x01" + bytes(31)

    outcome = await arena.struck(
        with_signature(body, bytes(64)),
        with_signature(body, b"\xff" * 64),
        with_signature(body, neutral + bytes(32)),
        with_signature(body, bytes(32) + split_parts(body).signature[32:]),
        with_signature(body, split_parts(body).signature[:32] + bytes(32)),
    )

    outcome.assert_forged("signature", times=5)


@pytest.mark.attack(28)
async def test_a_signature_of_another_length_is_malformed(arena: Arena) -> None:
    body = arena.sealed()
    signature = split_parts(body).signature

    outcome = await arena.struck(
        with_signature(body, signature[:63]), with_signature(body, signature + b"\x00"), with_signature(body, b"")
    )

    outcome.assert_forged("malformed", times=3)


@pytest.mark.attack(28)
async def test_the_same_scalar_in_another_form_does_not_hold(arena: Arena) -> None:
    body = arena.sealed()
    signature = split_parts(body).signature
    scalar = int.from_bytes(signature[32:], "little")
    others = [scalar + times * GROUP_ORDER for times in (1, 2, 8) if scalar + times * GROUP_ORDER < 1 << 256]

    outcome = await arena.struck(
        *(with_signature(body, signature[:32] + other.to_bytes(32, "little")) for other in others)
    )

    assert others
    outcome.assert_forged("signature", times=len(others))


@pytest.mark.attack(28)
async def test_a_signature_for_another_purpose_does_not_hold(arena: Arena) -> None:
    body = arena.sealed()
    parts, signer = split_parts(body), arena.realm.signer("users")
    leaf = parts.leaf()
    statements = (
        leaf,
        b"bundle\0" + leaf,
        suite.LABEL + b"bundle\0" + leaf,
        suite.root_statement(signer.kid, 2, leaf),
        suite.root_statement(arena.realm.signer("billing").kid, 1, leaf),
    )

    outcome = await arena.struck(*(with_signature(body, signer.sign(statement)) for statement in statements))

    outcome.assert_forged("signature", times=5)


@pytest.mark.attack(30)
@pytest.mark.parametrize("part", ["content", "block", "signature", "header"])
async def test_a_part_of_another_message_does_not_fit(arena: Arena, part: str) -> None:
    one, other = split_parts(arena.sealed()), split_parts(arena.sealed(PlaceOrder(note="other")))
    fresh = split_parts(arena.realm.sealed())
    donors = [donor for donor in (other, fresh) if getattr(donor, part) != getattr(one, part)]

    outcome = await arena.struck(*(join_parts(replace(one, **{part: getattr(donor, part)})) for donor in donors))

    assert donors
    outcome.assert_forged("signature", times=len(donors))


@pytest.mark.attack(30)
async def test_parts_of_two_messages_signed_by_their_sender_do_not_open(arena: Arena) -> None:
    one, two, donor = arena.sealed(), arena.sealed(), split_parts(arena.realm.sealed())
    signer = arena.realm.signer("users")

    outcome = await arena.struck(resign(one, signer, content=donor.content), resign(two, signer, block=donor.block))

    outcome.assert_buried(times=2)


@pytest.mark.attack(31)
@pytest.mark.parametrize("thief", ["billing", "orders", "ops:alice"])
async def test_anothers_signature_over_the_senders_header_does_not_hold(arena: Arena, thief: str) -> None:
    body = arena.sealed()

    outcome = await arena.struck(resign(body, arena.realm.signer(thief)))

    outcome.assert_forged("signature")


@pytest.mark.attack(32)
async def test_whoever_signs_anew_needs_a_right_of_its_own(arena: Arena) -> None:
    signer = arena.realm.signer("billing")
    body = resign(arena.sealed(), signer, fields={3: "billing", 4: signer.kid})

    outcome = await arena.struck(body)

    outcome.assert_refused("policy", body)


@pytest.mark.attack(32)
async def test_whoever_signs_anew_with_the_right_still_cannot_pass_on_the_content(arena: Arena) -> None:
    def may_send(payload: dict[str, Any]) -> None:
        payload["policy"]["send"].append({"from": "billing", "kind": "command", "name": "orders.*", "to": "orders"})

    arena.realm.publish(may_send)
    signer = arena.realm.signer("billing")
    body = resign(arena.sealed(), signer, fields={3: "billing", 4: signer.kid})

    outcome = await arena.struck(body)

    # It is billing's message, and a bad one: the wrapped key belongs to users' header.
    outcome.assert_buried()


@pytest.mark.attack(32)
async def test_the_recipient_cannot_pass_a_message_on_as_its_own(arena: Arena) -> None:
    def orders_may_charge(payload: dict[str, Any]) -> None:
        payload["policy"]["send"].append({"from": "orders", "kind": "command", "name": "billing.*", "to": "billing"})

    arena.realm.publish(orders_may_charge)
    signer = arena.realm.signer("orders")
    body = resign(arena.sealed(Charge()), signer, fields={3: "orders", 4: signer.kid})

    outcome = await arena.struck(body, service="billing")

    outcome.assert_buried()


def rewritten(arena: Arena, body: bytes, *, reader: str, note: str) -> Parts:
    """Return a message with new content under its own data key: what a subscriber can do with what it can read."""
    parts = split_parts(body)
    block = parse_block(parts.block)
    verified = arena.realm.opener(reader).verify_archived(body)
    row = next(row for row in block.rows if row.rid == reader)
    info = wrap_info(
        sender=verified.sender,
        skid=verified.header.address.skid,
        rid=row.rid,
        rkid=row.rkid,
        dek_id=block.dek_id,
        made_at_ms=block.made_at_ms,
    )
    key = arena.realm.keyrings[reader].decryption[row.rkid]
    content_key, commitment = DataKey(key.unwrap(row.wrapped, info)).derive(verified.header.salt, verified.header.mid)
    assert commitment == verified.header.cmt
    plain = pack_content(codec=0, headers={}, payload=arena.envelope(OrderPlaced(note=note)).payload)
    content = aead_seal(content_key, plain, block_digest=sha256(parts.block), header=parts.header)
    return replace(parts, content=content)


@pytest.mark.attack(34)
async def test_a_subscriber_cannot_rewrite_what_it_can_read(arena: Arena) -> None:
    body = arena.sealed(OrderPlaced())
    forged = join_parts(rewritten(arena, body, reader="billing", note="send money"))

    outcome = await arena.struck(forged, service="users", part="events")

    outcome.assert_forged("signature")


@pytest.mark.attack(34)
async def test_a_subscriber_cannot_publish_the_rewritten_event_as_its_own(arena: Arena) -> None:
    body = join_parts(rewritten(arena, arena.sealed(OrderPlaced()), reader="billing", note="send money"))
    signer = arena.realm.signer("billing")

    outcome = await arena.struck(
        resign(body, signer), resign(body, signer, fields={4: signer.kid}), service="users", part="events"
    )

    assert outcome.ran == ()
    assert dict(outcome.counts) == {"skipped.signature": 1, "skipped.unknown_key": 1}


@pytest.mark.attack(34)
async def test_the_rewriting_works_but_for_the_signature(arena: Arena) -> None:
    # Or the attacks above would prove nothing: signed by the publisher itself, the rewritten event is a good one.
    body = join_parts(rewritten(arena, arena.sealed(OrderPlaced()), reader="billing", note="rewritten"))

    outcome = await arena.struck(resign(body, arena.realm.signer("orders")), service="users", part="events")

    outcome.assert_ran()
    assert outcome.ran[0].message.note == "rewritten"
