"""The vectors of suite 2, byte for byte. A second implementation made them: `vectors/make_suite2.py`."""

import json
from typing import Any, Final

import pytest

from messaging import errors
from messaging.core.envelope import Kind
from messaging.core.topology import Names, Subscriptions
from messaging.security import merkle, suite
from messaging.security.bundle_format import sign_bundle
from messaging.security.content import parse_content
from messaging.security.development import encryption_entry, key_entry
from messaging.security.evidence import look_at, message_key, open_with
from messaging.security.header import Address, pack_header, parse_header
from messaging.security.keyblock import pack_block, parse_block
from messaging.security.keyring import Keyring
from messaging.security.keys import DecryptionKey, EncryptionKey, SigningKey
from messaging.security.open import Opener
from messaging.security.outer import Parts, join_parts, split_parts
from messaging.security.suite import DataKey
from messaging.security.trust import TrustStore
from tests.security.vectors.make_suite2 import FILE, made, open_wrap, wrap
from tests.support.realm import EVERY_KIND, Clock

VECTORS: Final[dict[str, Any]] = json.loads(FILE.read_text())
INPUTS: Final = VECTORS["inputs"]
REALM: Final = VECTORS["realm"]
NAMES: Final = Names(VECTORS["namespace"])
BLOCK: Final = bytes.fromhex(VECTORS["key_block"])
SIGNER: Final = SigningKey(bytes.fromhex(INPUTS["sign_private"]), realm=REALM)
MESSAGES: Final = list(zip(INPUTS["messages"], VECTORS["messages"], strict=True))
BATCHES: Final = sorted(int(size) for size in VECTORS["batches"])


def private(name: str) -> DecryptionKey:
    return DecryptionKey(bytes.fromhex(INPUTS[f"{name}_private"]), realm=REALM)


def optional(text: str | None) -> bytes | None:
    return None if text is None else bytes.fromhex(text)


def address_of(given: dict[str, Any]) -> Address:
    kind, typ, aud, ex, rk = (given[key] for key in ("kind", "typ", "aud", "ex", "rk"))
    return Address(suite.SUITE_2, Kind(kind), typ, INPUTS["sender"], SIGNER.kid, aud, ex, rk)


def extensions_of(given: dict[str, Any]) -> dict[str, Any]:
    return {key: bytes.fromhex(value) if key == "cause" else value for key, value in sorted(given["ext"].items())}


def opener(suites: list[int]) -> Opener:
    """Return what billing opens with, under a bundle that lists these suites."""
    keys = [private("billing"), private("billing_next"), private("suite_1")]
    root = SigningKey.generate(REALM)
    keyring = Keyring(
        service="billing",
        realm=REALM,
        signing=(SigningKey.generate(REALM),),
        decryption={key.kid: key for key in keys},
        roots=(root.public,),
    )
    clock = Clock(now_ms=INPUTS["messages"][0]["iat"])
    store = TrustStore(keyring, ambient=clock.ambient)
    store.replace(sign_bundle(_payload(keyring, suites), [root]))
    events = Subscriptions(events=frozenset({("orders.order_placed", 3)}))
    return Opener(keyring, store, NAMES, ambient=clock.ambient, subscriptions=events)


def _payload(keyring: Keyring, suites: list[int]) -> dict[str, Any]:
    def sign(key: SigningKey) -> list[dict[str, object]]:
        return [key_entry(key.kid, suite.ED25519, key.public.raw)]

    return {
        "realm": REALM,
        "dev": False,
        "version": 7,
        "issued": INPUTS["kiat"],
        "expires": INPUTS["kiat"] + 7 * 24 * 3_600_000,
        "suites": suites,
        "max_lifetime_s": 7 * 24 * 3600,
        "services": {
            "orders": {"sign": sign(SIGNER), "enc": [encryption_entry(DecryptionKey.generate(REALM, 2))]},
            "billing": {
                "sign": sign(keyring.signing[0]),
                "enc": [encryption_entry(key) for key in keyring.decryption.values()],
            },
        },
        "operators": {},
        "groups": {"group:ops": {"enc": [encryption_entry(private("ops"))], "members": []}},
        "revoked": [],
        "policy": {
            "send": [
                {"from": "orders", "kind": "command", "name": "billing.charge", "to": "billing"},
                {"from": "orders", "kind": "request", "name": "billing.quote", "to": "billing"},
            ],
            "subscribe": {"orders.order_placed": ["billing"]},
            "escrow": {"command": True, "event": True, "request": True, "reply": True},
            "replay": [],
        },
    }


def test_the_file_is_what_its_script_makes() -> None:
    assert made(VECTORS) == VECTORS


def test_key_ids_are_those_of_the_vectors() -> None:
    found = {name: private(name) for name in VECTORS["keys"]}

    assert {name: key.kid.hex() for name, key in found.items()} == {
        name: entry["kid"] for name, entry in VECTORS["keys"].items()
    }
    assert {name: key.public.raw.hex() for name, key in found.items()} == {
        name: entry["public"] for name, entry in VECTORS["keys"].items()
    }
    assert (SIGNER.kid.hex(), SIGNER.public.raw.hex()) == (VECTORS["skid"], VECTORS["sign_public"])


@pytest.mark.parametrize("name", ["billing", "billing_next", "ops"])
def test_each_recipient_unwraps_the_data_key(name: str) -> None:
    block = parse_block(BLOCK, suite=2)
    key = private(name)
    row = next(row for row in block.rows if row.rkid == key.kid)
    info = suite.wrap_info(
        suite=2,
        sender=INPUTS["sender"],
        skid=SIGNER.kid,
        rid=row.rid,
        rkid=row.rkid,
        dek_id=block.dek_id,
        made_at_ms=block.made_at_ms,
    )

    assert key.unwrap(row.wrapped, info).hex() == INPUTS["dek"]
    assert (block.dek_id.hex(), block.made_at_ms) == (INPUTS["dek_id"], INPUTS["kiat"])
    assert pack_block(block) == BLOCK


def test_both_implementations_open_what_the_other_wraps() -> None:
    key = private("billing")
    public = EncryptionKey(bytes.fromhex(VECTORS["keys"]["billing"]["public"]), realm=REALM)

    assert open_wrap(public.wrap(bytes(32), b"info"), key.secret(), b"info") == bytes(32)
    assert key.unwrap(wrap(bytes(32), public.raw, b"info"), b"info") == bytes(32)


@pytest.mark.parametrize(("given", "wanted"), MESSAGES)
def test_every_step_of_sealing_gives_the_bytes_of_the_vectors(given: dict[str, Any], wanted: dict[str, Any]) -> None:
    key = DataKey(bytes.fromhex(INPUTS["dek"]))
    mid, salt = bytes.fromhex(given["mid"]), bytes.fromhex(given["salt"])

    content_key, commitment = key.derive(salt, mid)
    header = pack_header(
        address_of(given).pack(),
        mid=mid,
        iat=given["iat"],
        exp=given["exp"],
        corr=optional(given["corr"]),
        bind=optional(given["bind"]),
        rto=given["rto"],
        salt=salt,
        cmt=commitment,
        ext=extensions_of(given),
    )
    content = suite.aead_seal(
        content_key, bytes.fromhex(given["plaintext"]), block_digest=suite.sha256(BLOCK), header=header
    )

    assert key.message_key(salt, mid).hex() == wanted["k_m"]
    assert (content_key.hex(), commitment.hex()) == (wanted["k_enc"], wanted["cmt"])
    assert header.hex() == wanted["header"]
    assert content.hex() == wanted["ciphertext"]
    assert Parts(header, BLOCK, content, b"", 1, 0, b"").leaf().hex() == wanted["leaf"]


@pytest.mark.parametrize(("given", "wanted"), MESSAGES)
def test_headers_of_the_vectors_are_read(given: dict[str, Any], wanted: dict[str, Any]) -> None:
    header = parse_header(bytes.fromhex(wanted["header"]), names=NAMES, suites=frozenset({2}))

    assert header.address == address_of(given)
    assert (header.mid.hex(), header.iat, header.exp) == (given["mid"], given["iat"], given["exp"])
    assert (header.corr, header.bind, header.rto) == (optional(given["corr"]), optional(given["bind"]), given["rto"])
    assert header.ext == extensions_of(given)


@pytest.mark.parametrize("size", BATCHES)
def test_batches_are_signed_byte_for_byte(size: int) -> None:
    wanted = VECTORS["batches"][str(size)]
    found = VECTORS["messages"][:size]

    root, paths = merkle.paths([bytes.fromhex(message["leaf"]) for message in found])
    signature = SIGNER.sign(suite.root_statement(SIGNER.kid, size, root))
    envelopes = [
        join_parts(
            Parts(
                bytes.fromhex(message["header"]),
                BLOCK,
                bytes.fromhex(message["ciphertext"]),
                signature,
                size,
                at,
                paths[at],
            )
        )
        for at, message in enumerate(found)
    ]

    assert (root.hex(), signature.hex()) == (wanted["root"], wanted["signature"])
    assert [path.hex() for path in paths] == wanted["paths"]
    assert [envelope.hex() for envelope in envelopes] == wanted["envelopes"]


@pytest.mark.parametrize("size", BATCHES)
def test_every_message_of_every_batch_opens(size: int) -> None:
    receiver = opener([2])

    for at, text in enumerate(VECTORS["batches"][str(size)]["envelopes"]):
        body = bytes.fromhex(text)
        opened = receiver.decrypt(receiver.verify(body, kinds=EVERY_KIND))

        assert opened.payload == parse_content(bytes.fromhex(INPUTS["messages"][at]["plaintext"])).payload
        assert join_parts(split_parts(body)) == body


@pytest.mark.parametrize("case", VECTORS["negative"], ids=lambda case: case["why"])
def test_negative_vectors_are_refused_for_their_reason(case: dict[str, Any]) -> None:
    receiver, error = opener(case["allowed"]), getattr(errors, case["error"])
    body = bytes.fromhex(case["envelope"])

    if case["step"] == "verify":
        with pytest.raises(error):
            receiver.verify(body, kinds=EVERY_KIND)
    else:
        verified = receiver.verify(body, kinds=EVERY_KIND)
        with pytest.raises(error):
            receiver.decrypt(verified)


def test_the_key_of_one_message_is_that_of_the_vectors() -> None:
    keyring = Keyring(
        service="billing",
        realm=REALM,
        signing=(SIGNER,),
        decryption={private("billing").kid: private("billing")},
        roots=(SIGNER.public,),
    )

    sighting = look_at(bytes.fromhex(VECTORS["batches"]["1"]["envelopes"][0]))
    key = message_key(sighting, keyring)

    assert key.hex() == VECTORS["messages"][0]["k_m"]
    assert open_with(sighting, key).payload == parse_content(bytes.fromhex(INPUTS["messages"][0]["plaintext"])).payload
