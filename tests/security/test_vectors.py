"""The published vectors, byte for byte: whatever changes one of them changes the format."""

import json
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import msgpack
import pytest

from messaging import errors
from messaging.core.envelope import Kind
from messaging.core.topology import Names, Subscriptions
from messaging.security import merkle, suite
from messaging.security.bundle_format import sign_bundle
from messaging.security.content import parse_content
from messaging.security.development import key_entry
from messaging.security.header import Address, pack_header, parse_header
from messaging.security.keyblock import pack_block, parse_block
from messaging.security.keyring import Keyring
from messaging.security.keys import DecryptionKey, SigningKey
from messaging.security.open import Opener
from messaging.security.outer import Parts, join_parts, leaf_of, split_parts
from messaging.security.suite import DataKey
from messaging.security.trust import TrustStore
from tests.support.realm import EVERY_KIND, Clock

pytestmark = pytest.mark.attack(68)

VECTORS: Final[dict[str, Any]] = json.loads((Path(__file__).parent / "vectors" / "seal-v1.json").read_text())
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
    return Address(1, Kind(kind), typ, INPUTS["sender"], SIGNER.kid, aud, ex, rk)


def extensions_of(given: dict[str, Any]) -> dict[str, Any]:
    return {key: bytes.fromhex(value) if key == "cause" else value for key, value in sorted(given["ext"].items())}


@pytest.fixture
def opener() -> Opener:
    own = {key.kid: key for key in (private("billing"), private("billing_next"))}
    root = SigningKey.generate(REALM)
    keyring = Keyring(
        service="billing", realm=REALM, signing=(SigningKey.generate(REALM),), decryption=own, roots=(root.public,)
    )
    clock = Clock(now_ms=INPUTS["messages"][0]["iat"])
    store = TrustStore(keyring, ambient=clock.ambient)
    store.replace(sign_bundle(_payload(keyring), [root]))
    return Opener(
        keyring,
        store,
        NAMES,
        ambient=clock.ambient,
        subscriptions=Subscriptions(events=frozenset({("orders.order_placed", 3)})),
    )


def _payload(keyring: Keyring) -> dict[str, Any]:
    def enc(*keys: DecryptionKey) -> list[dict[str, object]]:
        return [key_entry(key.kid, suite.X25519, key.public.raw) for key in keys]

    def sign(key: SigningKey) -> list[dict[str, object]]:
        return [key_entry(key.kid, suite.ED25519, key.public.raw)]

    return {
        "realm": REALM,
        "dev": False,
        "version": 42,
        "issued": INPUTS["kiat"],
        "expires": INPUTS["kiat"] + 7 * 24 * 3_600_000,
        "suites": [1],
        "max_lifetime_s": 7 * 24 * 3600,
        "services": {
            "orders": {"sign": sign(SIGNER), "enc": enc(DecryptionKey.generate(REALM))},
            "billing": {"sign": sign(keyring.signing[0]), "enc": enc(*keyring.decryption.values())},
        },
        "operators": {},
        "groups": {"group:ops": {"enc": enc(private("ops")), "members": []}},
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
    block = parse_block(BLOCK)
    key = private(name)
    row = next(row for row in block.rows if row.rkid == key.kid)
    info = suite.wrap_info(
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
        corr=optional(given.get("corr")),
        bind=optional(given.get("bind")),
        rto=given.get("rto"),
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
def test_headers_and_contents_of_the_vectors_are_read(given: dict[str, Any], wanted: dict[str, Any]) -> None:
    header = parse_header(bytes.fromhex(wanted["header"]), names=NAMES, suites=frozenset({1}))
    content = parse_content(bytes.fromhex(given["plaintext"]))

    assert header.address == address_of(given)
    assert (header.mid.hex(), header.iat, header.exp) == (given["mid"], given["iat"], given["exp"])
    assert (header.corr, header.bind, header.rto) == (
        optional(given.get("corr")), optional(given.get("bind")), given.get("rto"),
    )  # fmt: skip
    assert header.ext == extensions_of(given)
    codec, _, headers, body, _ = msgpack.unpackb(bytes.fromhex(given["plaintext"]))
    assert (content.codec, content.headers, content.payload) == (codec, headers, body)


def test_the_id_of_the_fault_is_derived() -> None:
    given = next(given for given, _ in MESSAGES if given["kind"] == Kind.FAULT)

    assert suite.fault_id(bytes.fromhex(given["bind"]), 0) == UUID(hex=given["mid"])


@pytest.mark.parametrize("size", BATCHES)
def test_batches_are_signed_byte_for_byte(size: int) -> None:
    wanted = VECTORS["batches"][str(size)]
    leaves = [bytes.fromhex(message["leaf"]) for message in VECTORS["messages"][:size]]

    root, paths = merkle.paths(leaves)
    signature = SIGNER.sign(suite.root_statement(SIGNER.kid, size, root))
    envelopes = [
        join_parts(
            Parts(
                bytes.fromhex(VECTORS["messages"][at]["header"]),
                BLOCK,
                bytes.fromhex(VECTORS["messages"][at]["ciphertext"]),
                signature,
                size,
                at,
                paths[at],
            )
        )
        for at in range(size)
    ]

    assert (root.hex(), signature.hex()) == (wanted["root"], wanted["signature"])
    assert [path.hex() for path in paths] == wanted["paths"]
    assert [envelope.hex() for envelope in envelopes] == wanted["envelopes"]


@pytest.mark.parametrize("size", BATCHES)
def test_every_message_of_every_batch_opens(size: int, opener: Opener) -> None:
    for at, text in enumerate(VECTORS["batches"][str(size)]["envelopes"]):
        body = bytes.fromhex(text)

        verified = opener.verify(body, kinds=EVERY_KIND)
        opened = opener.decrypt(verified)

        given = INPUTS["messages"][at]
        assert verified.leaf == leaf_of(body) == bytes.fromhex(VECTORS["messages"][at]["leaf"])
        assert opened.payload == parse_content(bytes.fromhex(given["plaintext"])).payload
        assert join_parts(split_parts(body)) == body


@pytest.mark.parametrize("case", VECTORS["negative"], ids=lambda case: case["why"])
def test_negative_vectors_are_refused_for_their_reason(case: dict[str, Any], opener: Opener) -> None:
    with pytest.raises(getattr(errors, case["error"])):
        opener.verify(bytes.fromhex(case["envelope"]), kinds=EVERY_KIND)
