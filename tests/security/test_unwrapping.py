from dataclasses import replace
from typing import Any

import msgpack
import pytest

from messaging.core.envelope import Kind
from messaging.errors import (
    AudienceError,
    DecryptionError,
    Disposition,
    MalformedError,
    SealError,
    UnknownKeyError,
    UnsupportedError,
)
from messaging.security import suite
from messaging.security.bundle import OPS_GROUP
from messaging.security.development import identity_entry
from messaging.security.keyblock import KeyBlock, Row, pack_block, parse_block
from messaging.security.keyring import Keyring
from messaging.security.keys import DecryptionKey
from messaging.security.outer import split_parts
from messaging.security.unwrapping import KEY_AGE_MAX_MS, KEY_AHEAD_MAX_MS, KEYS_LIFE_S
from tests.support.realm import EVERY_KIND, START_MS, Realm, alter_header, resign

HEADER_KIND, HEADER_TYPE, HEADER_SENDER, HEADER_SKID, HEADER_EXCHANGE, HEADER_KEY = 1, 2, 3, 4, 6, 7
HEADER_MID, HEADER_IAT, HEADER_REPLY_TO, HEADER_SALT, HEADER_CMT = 8, 9, 13, 14, 15
SECRET = b"\x05" * 32
PLAINTEXT = b"\x95\x03\x00\x80\xc4\x05hello\xc4\x00"


@pytest.fixture
def realm() -> Realm:
    return Realm()


def decrypt(realm: Realm, body: bytes, name: str = "orders") -> bytes:
    opener = realm.opener(name)
    return opener.decrypt(opener.verify(body, kinds=EVERY_KIND)).payload


def refusal(realm: Realm, body: bytes, name: str = "orders") -> SealError:
    with pytest.raises(SealError) as caught:
        decrypt(realm, body, name)
    return caught.value


def event(realm: Realm) -> bytes:
    return realm.sealed(kind=Kind.EVENT, name="orders.order_placed", sender="orders")


def test_every_reader_opens_the_same_bytes(realm: Realm) -> None:
    body = event(realm)

    assert decrypt(realm, body, "users") == decrypt(realm, body, "billing") == b"\x81\xa1n\x01"


def test_operators_read_by_the_key_of_their_group(realm: Realm) -> None:
    opener = realm.opener("ops:alice")

    assert opener.decrypt(opener.verify_archived(realm.sealed())).payload == b"\x81\xa1n\x01"


def test_a_former_member_of_the_group_reads_nothing(realm: Realm) -> None:
    body = realm.sealed()
    realm.publish(lambda payload: payload["groups"][OPS_GROUP].update(members=[]))
    opener = realm.opener("ops:alice")
    archived = opener.verify_archived(body)

    with pytest.raises(AudienceError):
        opener.decrypt(archived)


def counting(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    calls: list[bytes] = []
    unwrap = DecryptionKey.unwrap

    def counted(self: DecryptionKey, wrapped: bytes, info: bytes) -> bytes:
        calls.append(wrapped)
        return unwrap(self, wrapped, info)

    monkeypatch.setattr(DecryptionKey, "unwrap", counted)
    return calls


def test_a_data_key_is_unwrapped_once(realm: Realm, monkeypatch: pytest.MonkeyPatch) -> None:
    sealer, opener, calls = realm.sealer("users"), realm.opener("orders"), counting(monkeypatch)

    for _ in range(5):
        body = sealer.seal(realm.envelope(), routing_key="orders.place_order.v1")
        opener.decrypt(opener.verify(body, kinds=EVERY_KIND))

    assert len(calls) == 1


def test_senders_in_turn_have_their_data_keys_unwrapped_once_each(
    realm: Realm, monkeypatch: pytest.MonkeyPatch
) -> None:
    sealers = [realm.sealer(name) for name in ("users", "users")]
    opener, calls = realm.opener("orders"), counting(monkeypatch)

    for _ in range(3):
        for sealer in sealers:
            body = sealer.seal(realm.envelope(), routing_key="orders.place_order.v1")
            assert opener.decrypt(opener.verify(body, kinds=EVERY_KIND)).payload == b"\x81\xa1n\x01"

    assert len(calls) == 2


@pytest.mark.parametrize("change", ["age", "bundle"])
def test_a_data_key_is_unwrapped_again(realm: Realm, monkeypatch: pytest.MonkeyPatch, change: str) -> None:
    opener, calls, body = realm.opener("orders"), counting(monkeypatch), realm.sealed()
    opener.decrypt(opener.verify(body, kinds=EVERY_KIND))
    if change == "age":
        realm.clock.advance(KEYS_LIFE_S)
    else:
        realm.publish()

    opener.decrypt(opener.verify(body, kinds=EVERY_KIND))

    assert len(calls) == 2


def test_a_data_key_whose_commitment_fails_is_not_kept(realm: Realm, monkeypatch: pytest.MonkeyPatch) -> None:
    opener, calls = realm.opener("orders"), counting(monkeypatch)
    body = resign(realm.sealed(), realm.signer("users"), fields={HEADER_CMT: bytes(32)})

    for _ in range(2):
        with pytest.raises(DecryptionError, match="commitment"):
            opener.decrypt(opener.verify(body, kinds=EVERY_KIND))

    assert len(calls) == 2


def test_a_wrong_commitment_is_refused_before_the_cipher_runs(realm: Realm, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object, **__: object) -> bytes:
        raise AssertionError("the cipher ran")

    body = resign(realm.sealed(), realm.signer("users"), fields={HEADER_CMT: bytes(32)})
    monkeypatch.setattr(suite, "aead_open", never)

    error = refusal(realm, body)

    assert (type(error), error.disposition) == (DecryptionError, Disposition.CONTENT)


def flipped(raw: bytes, at: int = -1) -> bytes:
    at %= len(raw)
    return raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1 :]


def own_row_changed(body: bytes, wrapped: bytes | None = None) -> bytes:
    block = parse_block(split_parts(body).block)
    rows = tuple(
        replace(row, wrapped=wrapped or flipped(row.wrapped)) if row.rid == "orders" else row for row in block.rows
    )
    return pack_block(replace(block, rows=rows))


def test_what_its_own_sender_garbled_is_failed_content(realm: Realm) -> None:
    body, signer = realm.sealed(), realm.signer("users")
    parts = split_parts(body)
    garbled = [
        resign(body, signer, block=own_row_changed(body)),
        resign(body, signer, content=flipped(parts.content)),
        resign(body, signer, content=parts.content[:5]),
        resign(body, signer, fields={HEADER_SALT: bytes(16)}),
        resign(body, signer, block=parts.block[:-1]),
        resign(body, signer, block=b""),
    ]

    errors = [refusal(realm, each) for each in garbled]

    assert [error.disposition for error in errors] == [Disposition.CONTENT] * 6
    assert [type(error) for error in errors] == [DecryptionError] * 4 + [MalformedError] * 2


def test_a_wrap_for_other_facts_does_not_open(realm: Realm) -> None:
    body = realm.sealed()
    key = next(iter(realm.keyrings["orders"].decryption.values()))
    info = suite.wrap_info(
        sender="billing",
        skid=realm.signer("users").kid,
        rid="orders",
        rkid=key.kid,
        dek_id=bytes(16),
        made_at_ms=START_MS,
    )

    wrapped = key.public.wrap(bytes(32), info)

    assert (
        type(refusal(realm, resign(body, realm.signer("users"), block=own_row_changed(body, wrapped))))
        is DecryptionError
    )


def test_an_event_that_is_not_sealed_to_me_is_skipped(realm: Realm) -> None:
    realm.publish(lambda payload: payload["policy"]["subscribe"].update({"orders.order_placed": ["users"]}))

    error = refusal(realm, event(realm), "billing")

    assert (type(error), error.disposition) == (AudienceError, Disposition.SKIPPED)


def without_row(realm: Realm, body: bytes, rid: str) -> bytes:
    block = parse_block(split_parts(body).block)
    rows = tuple(row for row in block.rows if row.rid != rid)
    return resign(body, realm.signer("users"), block=pack_block(replace(block, rows=rows)))


def test_a_command_that_is_not_sealed_to_me_is_refused(realm: Realm) -> None:
    error = refusal(realm, without_row(realm, realm.sealed(), "orders"))

    assert (type(error), error.disposition) == (AudienceError, Disposition.REFUSED)


def test_a_message_hidden_from_the_operators_is_refused_where_policy_demands_escrow(realm: Realm) -> None:
    body = without_row(realm, realm.sealed(), OPS_GROUP)

    error = refusal(realm, body)
    realm.publish(lambda payload: payload["policy"]["escrow"].update(command=False))

    assert (type(error), error.disposition) == (AudienceError, Disposition.REFUSED)
    # The content had been encrypted with the block as it was: only the demand is gone.
    assert type(refusal(realm, body)) is DecryptionError


def test_a_key_that_the_keyring_lacks_is_local_trouble(realm: Realm) -> None:
    fresh = realm.new_keyring("orders")

    def rotate(payload: dict[str, Any]) -> None:
        payload["services"]["orders"]["enc"][0]["state"] = "retiring"
        payload["services"]["orders"]["enc"].extend(identity_entry(fresh)["enc"])

    realm.publish(rotate)
    body = realm.sealed()
    error = refusal(realm, body)
    old = realm.keyrings["orders"]
    realm.keyrings["orders"] = replace(old, decryption={**old.decryption, **fresh.decryption})

    assert (type(error), error.disposition) == (UnknownKeyError, Disposition.LOCAL)
    assert decrypt(realm, body) == b"\x81\xa1n\x01"


def test_a_key_of_a_newer_bundle_may_be_our_own_lag(realm: Realm) -> None:
    fresh = realm.new_keyring("orders")

    def rotate(payload: dict[str, Any]) -> None:
        payload["services"]["orders"]["enc"] = identity_entry(fresh)["enc"]

    realm.publish(rotate, to="users")

    error = refusal(realm, realm.sealed())

    assert (type(error), error.disposition) == (UnknownKeyError, Disposition.LAG)


def test_a_key_that_is_gone_for_good_is_failed_content(realm: Realm) -> None:
    body = realm.sealed()
    realm.keyrings["orders"] = realm.new_keyring("orders")
    realm.publish(
        lambda payload: payload["services"]["orders"].update(enc=identity_entry(realm.keyrings["orders"])["enc"])
    )

    error = refusal(realm, body)

    assert (type(error), error.disposition) == (UnknownKeyError, Disposition.CONTENT)


@pytest.mark.parametrize(
    ("age_ms", "opens"),
    [(KEY_AGE_MAX_MS, True), (KEY_AGE_MAX_MS + 1, False), (-KEY_AHEAD_MAX_MS, True), (-KEY_AHEAD_MAX_MS - 1, False)],
)
def test_a_data_key_belongs_to_its_time(realm: Realm, age_ms: int, opens: bool) -> None:
    body = sealed_under(realm, made_at_ms=START_MS - age_ms)

    if opens:
        assert decrypt(realm, body) == b"hello"
    else:
        assert "not of the message's time" in str(refusal(realm, body))


def another_under(realm: Realm, body: bytes, *, fields: dict[int, Any], salt: bytes = bytes(16)) -> bytes:
    """Return a further message of users under the data key of one by `sealed_under`, with other fields."""
    parts = split_parts(body)
    header = alter_header(parts.header, {HEADER_SALT: salt, **fields})
    mid = msgpack.unpackb(header)[HEADER_MID]
    content_key, commitment = suite.DataKey(SECRET).derive(salt, mid)
    header = alter_header(header, {HEADER_CMT: commitment, **fields})
    content = suite.aead_seal(content_key, PLAINTEXT, block_digest=suite.sha256(parts.block), header=header)
    return resign(body, realm.signer("users"), header=header, content=content)


def test_a_data_key_that_is_known_still_belongs_to_its_time(realm: Realm) -> None:
    body = sealed_under(realm, made_at_ms=START_MS - KEY_AGE_MAX_MS + 30_000)
    within, beyond = (another_under(realm, body, fields={HEADER_IAT: START_MS + ms}) for ms in (30_000, 30_001))
    opener = realm.opener("orders")
    opened = [opener.decrypt(opener.verify(each, kinds=EVERY_KIND)).payload for each in (body, within)]

    verified = opener.verify(beyond, kinds=EVERY_KIND)
    with pytest.raises(DecryptionError, match="time"):
        opener.decrypt(verified)

    assert opened == [b"hello"] * 2


def test_a_commitment_is_asked_of_each_message_under_a_known_data_key(
    realm: Realm, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = sealed_under(realm, made_at_ms=START_MS)
    forged = another_under(realm, body, fields={HEADER_CMT: bytes(32)})
    opener, unwraps = realm.opener("orders"), counting(monkeypatch)
    assert opener.decrypt(opener.verify(body, kinds=EVERY_KIND)).payload == b"hello"

    verified = opener.verify(forged, kinds=EVERY_KIND)
    with pytest.raises(DecryptionError, match="commitment"):
        opener.decrypt(verified)

    assert len(unwraps) == 1


def test_a_known_data_key_hides_no_kind_from_the_operators_that_policy_shows_them(realm: Realm) -> None:
    command = sealed_under(realm, made_at_ms=START_MS)
    asking = {
        HEADER_KIND: int(Kind.REQUEST),
        HEADER_TYPE: "orders.get_order/1",
        HEADER_EXCHANGE: "messaging.requests",
        HEADER_KEY: "orders.get_order.v1",
        HEADER_REPLY_TO: "messaging.users.replies.00112233445566ff",
    }
    request = another_under(realm, command, fields=asking)
    realm.publish(lambda payload: payload["policy"]["escrow"].update(command=True))
    opener = realm.opener("orders")
    assert opener.decrypt(opener.verify(request, kinds=EVERY_KIND)).payload == b"hello"

    verified = opener.verify(command, kinds=EVERY_KIND)
    with pytest.raises(AudienceError, match="operators"):
        opener.decrypt(verified)


@pytest.mark.parametrize("who", ["billing", "users"])
def test_a_data_key_that_is_known_opens_nothing_of_another_sender_or_key(realm: Realm, who: str) -> None:
    theirs = sealed_under(realm, made_at_ms=START_MS)
    signer, fresh = realm.signer(who), realm.new_keyring("users")
    if who == "users":
        signer = fresh.signing[0]

    def edit(payload: dict[str, Any]) -> None:
        payload["policy"]["send"].append({"from": "billing", "kind": "command", "name": "orders.*", "to": "orders"})
        payload["services"]["users"]["sign"].extend(identity_entry(fresh)["sign"])

    realm.publish(edit)
    opener = realm.opener("orders")
    parts = split_parts(theirs)
    header = alter_header(parts.header, {HEADER_SENDER: who, HEADER_SKID: signer.kid})
    mid = opener.verify(theirs, kinds=EVERY_KIND).header.mid
    # Whoever can read the message knows its data key, and may seal with it what it signs itself.
    content_key, _ = suite.DataKey(SECRET).derive(bytes(16), mid)
    content = suite.aead_seal(content_key, PLAINTEXT, block_digest=suite.sha256(parts.block), header=header)
    own = resign(theirs, signer, header=header, content=content)

    assert opener.decrypt(opener.verify(theirs, kinds=EVERY_KIND)).payload == b"hello"
    verified = opener.verify(own, kinds=EVERY_KIND)
    with pytest.raises(DecryptionError):
        opener.decrypt(verified)


def test_an_escrow_demand_does_not_hinder_reading_the_archive(realm: Realm) -> None:
    body = sealed_under(realm, made_at_ms=START_MS)
    realm.publish(lambda payload: payload["policy"]["escrow"].update(command=True))
    opener = realm.opener("orders")

    assert opener.decrypt(opener.verify_archived(body)).payload == b"hello"


@pytest.mark.parametrize(
    ("plaintext", "error"),
    [
        (b"\x95\x00\x01\x80\xc4\x00\xc4\x00", UnsupportedError),
        (b"\x95\x09\x00\x80\xc4\x00\xc4\x00", UnsupportedError),
        (b"{}", MalformedError),
    ],
)
def test_a_content_out_of_form_is_failed_content(realm: Realm, plaintext: bytes, error: type[SealError]) -> None:
    found = refusal(realm, sealed_under(realm, made_at_ms=START_MS, plaintext=plaintext))

    assert (type(found), found.disposition) == (error, Disposition.CONTENT)


def sealed_under(realm: Realm, *, made_at_ms: int, plaintext: bytes = PLAINTEXT) -> bytes:
    """Return a command by hand, with a data key of a time of one's own, sealed to orders alone."""
    realm.publish(lambda payload: payload["policy"]["escrow"].update(command=False))
    secret, dek_id, salt = SECRET, bytes(16), bytes(16)
    sender = realm.signer("users")
    key = next(iter(realm.keyrings["orders"].decryption.values()))
    info = suite.wrap_info(
        sender="users", skid=sender.kid, rid="orders", rkid=key.kid, dek_id=dek_id, made_at_ms=made_at_ms
    )
    block = pack_block(KeyBlock(dek_id, made_at_ms, (Row("orders", key.kid, key.public.wrap(secret, info)),)))
    body = realm.sealed()
    mid = realm.opener("orders").verify(body, kinds=EVERY_KIND).header.mid
    content_key, commitment = suite.DataKey(secret).derive(salt, mid)
    fields = {HEADER_IAT: START_MS, HEADER_SALT: salt, HEADER_CMT: commitment}
    header = alter_header(split_parts(body).header, fields)
    content = suite.aead_seal(content_key, plaintext, block_digest=suite.sha256(block), header=header)
    return resign(body, sender, header=header, block=block, content=content)


def test_a_keyring_of_two_keys_opens_with_the_one_that_fits(realm: Realm) -> None:
    fresh = realm.new_keyring("orders")
    old = realm.keyrings["orders"]
    realm.keyrings["orders"] = Keyring(
        service="orders",
        realm="test",
        signing=old.signing,
        decryption={**fresh.decryption, **old.decryption},
        roots=old.roots,
    )
    opener, body = realm.opener("orders"), realm.sealed()

    found = [opener.decrypt(opener.verify(body, kinds=EVERY_KIND)).payload for _ in range(2)]

    assert found == [b"\x81\xa1n\x01"] * 2
