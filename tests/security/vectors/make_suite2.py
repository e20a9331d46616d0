"""Makes the vectors of suite 2, from the text of docs/spec.md alone: nothing here comes from the library.

    python -m tests.security.vectors.make_suite2

X-Wing and HPKE are written out here on the primitives they stand on, so the vectors are those of a second
implementation. Encapsulation is random by design: key blocks that the file holds already are kept when they still open,
so that a second run changes nothing.
"""

import hashlib
import hmac
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgpack
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

__all__ = ["FILE", "made", "open_wrap", "wrap"]

FILE: Final = Path(__file__).with_name("seal-v1-suite2.json")
NOTE: Final = (
    "Suite 2 vectors of the sealed message. Byte strings are hex. HPKE is randomised: 'wrapped' in key_block is for "
    "decryption tests; all else is deterministic. A private key is ML-KEM-768 seed (64) and X25519 (32), a public one "
    "encapsulation key (1184) and X25519 (32). 'step' of a negative case is the first that refuses: verify is steps "
    "1 to 8, decrypt 10 to 14; 'allowed' are the suites that the trust bundle lists."
)
P: Final = b"messaging/1/"
REALM: Final = "vectors"
SENDER: Final = "orders"
IAT: Final = 1_790_000_001_000
LIFE: Final = 86_400_000
KIAT: Final = 1_790_000_000_000
ED25519, X25519, XWING = 1, 2, 3
# Of HPKE: X-Wing, HKDF-SHA256, AES-256-GCM.
SUITE_ID: Final = b"HPKE" + bytes.fromhex("647a00010002")
XWING_LABEL: Final = bytes.fromhex("5c2e2f2f5e5c")
REPLIES: Final = "messaging.billing.replies.0011223344556677"

Json = dict[str, Any]


def run(first: int, size: int) -> bytes:
    """Return bytes that count upwards."""
    return bytes((first + at) % 256 for at in range(size))


SIGN: Final = run(0x00, 32)
PRIVATE: Final = {"billing": run(0x20, 96), "billing_next": run(0x90, 96), "ops": run(0xF0, 96)}
# A key of suite 1, for the cases in which it stands where none may.
OLD_PRIVATE: Final = run(0x11, 32)
DEK: Final = run(0x40, 32)
DEK_ID: Final = run(0x60, 16)


def packed(value: object) -> bytes:
    return bytes(msgpack.packb(value))


def sha256(*parts: bytes) -> bytes:
    return hashlib.sha256(b"".join(parts)).digest()


def public_of(private: bytes) -> bytes:
    """Return the public key of suite 2, or of suite 1 when the private one has 32 bytes."""
    curve = X25519PrivateKey.from_private_bytes(private[-32:]).public_key().public_bytes_raw()
    if len(private) == 32:
        return curve
    return MLKEM768PrivateKey.from_seed_bytes(private[:64]).public_key().public_bytes_raw() + curve


def kid_of(algorithm: int, public: bytes) -> bytes:
    return sha256(P, b"kid\0", bytes((algorithm, len(REALM))), REALM.encode(), public)[:8]


def combined(lattice: bytes, curve: bytes, share: bytes, public: bytes) -> bytes:
    """Return the secret of X-Wing (draft-connolly-cfrg-xwing-kem, "Combiner")."""
    return hashlib.sha3_256(lattice + curve + share + public + XWING_LABEL).digest()


def extracted(salt: bytes, label: bytes, secret: bytes) -> bytes:
    return hmac.digest(salt, b"HPKE-v1" + SUITE_ID + label + secret, "sha256")


def expanded(key: bytes, label: bytes, context: bytes, size: int) -> bytes:
    info = size.to_bytes(2, "big") + b"HPKE-v1" + SUITE_ID + label + context
    return hmac.digest(key, info + b"\x01", "sha256")[:size]


def schedule(secret: bytes, info: bytes) -> tuple[AESGCM, bytes]:
    """Return cipher and nonce of the first message in base mode (RFC 9180, 5.1)."""
    context = b"\0" + extracted(b"", b"psk_id_hash", b"") + extracted(b"", b"info_hash", info)
    key = extracted(secret, b"secret", b"")
    return AESGCM(expanded(key, b"key", context, 32)), expanded(key, b"base_nonce", context, 12)


def wrap(secret: bytes, public: bytes, info: bytes) -> bytes:
    """Return a data key wrapped in suite 2."""
    ephemeral = X25519PrivateKey.generate()
    share = ephemeral.public_key().public_bytes_raw()
    lattice, capsule = MLKEM768PublicKey.from_public_bytes(public[:1184]).encapsulate()
    curve = ephemeral.exchange(X25519PublicKey.from_public_bytes(public[1184:]))
    cipher, nonce = schedule(combined(lattice, curve, share, public[1184:]), info)
    return capsule + share + cipher.encrypt(nonce, secret, b"")


def open_wrap(wrapped: bytes, private: bytes, info: bytes) -> bytes:
    """Return the data key of a wrap of suite 2."""
    capsule, share, sealed = wrapped[:1088], wrapped[1088:1120], wrapped[1120:]
    lattice = MLKEM768PrivateKey.from_seed_bytes(private[:64]).decapsulate(capsule)
    key = X25519PrivateKey.from_private_bytes(private[64:])
    curve = key.exchange(X25519PublicKey.from_public_bytes(share))
    cipher, nonce = schedule(combined(lattice, curve, share, key.public_key().public_bytes_raw()), info)
    return cipher.decrypt(nonce, sealed, b"")


def info_of(rid: str, rkid: bytes, *, suite: int = 2) -> bytes:
    return P + b"wrap\0" + packed([suite, SENDER, SKID, rid, rkid, DEK_ID, KIAT])


SIGNER: Final = Ed25519PrivateKey.from_private_bytes(SIGN)
SIGN_PUBLIC: Final = SIGNER.public_key().public_bytes_raw()
SKID: Final = kid_of(ED25519, SIGN_PUBLIC)
RIDS: Final = {"billing": "billing", "billing_next": "billing", "ops": "group:ops"}
KIDS: Final = {name: kid_of(XWING, public_of(private)) for name, private in PRIVATE.items()}
OLD_KID: Final = kid_of(X25519, public_of(OLD_PRIVATE))


def block_of(rows: Sequence[tuple[str, bytes, bytes]]) -> bytes:
    return packed([DEK_ID, KIAT, sorted([list(row) for row in rows])])


def fresh_rows(names: Sequence[str]) -> list[tuple[str, bytes, bytes]]:
    return [
        (RIDS[name], KIDS[name], wrap(DEK, public_of(PRIVATE[name]), info_of(RIDS[name], KIDS[name]))) for name in names
    ]


def opens(block: bytes) -> bool:
    """Tell whether every row of a block of this file still holds the data key."""
    dek_id, kiat, rows = msgpack.unpackb(block)
    private = {KIDS[name]: PRIVATE[name] for name in PRIVATE}
    return (dek_id, kiat) == (DEK_ID, KIAT) and all(
        open_wrap(wrapped, private[rkid], info_of(rid, rkid)) == DEK for rid, rkid, wrapped in rows
    )


def message(number: int, kind: int, typ: str, to: tuple[str, str, str], *, body: object, **more: object) -> Json:
    """Return the inputs of one message."""
    codec, headers, payload = (3, {}, body) if isinstance(body, bytes) else (0, {"tenant": "t-1"}, packed(body))
    return {
        "kind": kind, "typ": typ, "aud": to[0], "ex": to[1], "rk": to[2],
        "mid": run(0x80 + 16 * number, 16).hex(), "iat": IAT, "exp": IAT + LIFE, "corr": None, "bind": None,
        "rto": None, "salt": run(0x70 + number, 16).hex(), "ext": {},
        "plaintext": packed([codec, 0, headers, payload, b""]).hex(), **more,
    }  # fmt: skip


def messages() -> list[Json]:
    """Return a message of each kind that a service can send; the fault is about a command of billing."""
    failed = run(0xB0, 32)
    fault_mid = sha256(P, b"fault\0", failed, bytes(4))[:16]
    command = ("billing", "messaging.commands", "billing.charge.v1")
    return [
        message(0, 1, "billing.charge/1", command, body={"n": 0}, ext={"bv": 7}),
        message(1, 1, "billing.charge/1", command, body={"n": 1}, ext={"bv": 7, "traceparent": "00-ab-cd-01"}),
        message(
            2, 2, "orders.order_placed/3",
            ("event:orders.order_placed", "messaging.events", "orders.order_placed.v3"),
            body={"n": 2}, ext={"bv": 7, "cause": run(0x33, 16).hex()}, corr=run(0x55, 16).hex(),
        ),
        message(
            3, 3, "billing.quote/1", ("billing", "messaging.requests", "billing.quote.v1"),
            body={"n": 3}, ext={}, rto="messaging.orders.replies.0011223344556677",
        ),
        message(
            4, 4, "orders.get_order/1", ("billing", "messaging.replies", REPLIES),
            body={"ok": 4}, ext={"bv": 7}, corr=run(0x44, 16).hex(), bind=run(0xA0, 32).hex(),
        ),
        message(
            5, 5, "orders.place_order/2", ("billing", "messaging.dead", "dead.orders.billing"),
            body=[b"original", {"error": "ValueError"}], ext={"bv": 7}, bind=failed.hex(), mid=fault_mid.hex(),
        ),
    ]  # fmt: skip


def header_of(given: Mapping[str, Any], commitment: bytes, *, suite: int = 2) -> bytes:
    def octets(name: str) -> bytes | None:
        return None if given[name] is None else bytes.fromhex(given[name])

    extensions = {key: bytes.fromhex(value) if key == "cause" else value for key, value in sorted(given["ext"].items())}
    return packed(
        [
            suite, given["kind"], given["typ"], SENDER, SKID, given["aud"], given["ex"], given["rk"], octets("mid"),
            given["iat"], given["exp"], octets("corr"), octets("bind"), given["rto"], octets("salt"), commitment,
            extensions,
        ]
    )  # fmt: skip


def sealed(given: Mapping[str, Any], block: bytes, *, suite: int = 2) -> Json:
    """Return every step of sealing one message, up to its leaf."""
    salt, mid = bytes.fromhex(given["salt"]), bytes.fromhex(given["mid"])
    message_key = hmac.digest(DEK, P + b"msg\0" + salt + mid + b"\x01", "sha512")[:32]
    both = hmac.digest(message_key, P + b"split\0\x01", "sha512")
    header = header_of(given, both[32:], suite=suite)
    associated = P + b"aad\0" + sha256(block) + header
    content = AESGCM(both[:32]).encrypt(bytes(12), bytes.fromhex(given["plaintext"]), associated)
    leaf = sha256(b"\0", P, b"leaf\0", sha256(header), sha256(block), sha256(content))
    parts = {"k_m": message_key, "k_enc": both[:32], "cmt": both[32:], "header": header, "ciphertext": content}
    return {name: value.hex() for name, value in {**parts, "leaf": leaf}.items()}


def rooted(leaves: Sequence[bytes]) -> tuple[bytes, list[bytes]]:
    """Return the root of a tree and each leaf's path."""
    paths: list[list[bytes]] = [[] for _ in leaves]
    level = [(leaf, [at]) for at, leaf in enumerate(leaves)]
    while len(level) > 1:
        above = []
        for at in range(0, len(level) - 1, 2):
            (left, lefts), (right, rights) = level[at], level[at + 1]
            for place in lefts:
                paths[place].append(right)
            for place in rights:
                paths[place].append(left)
            above.append((sha256(b"\x01", left, right), lefts + rights))
        level = above + level[len(level) & ~1 :]
    return level[0][0], [b"".join(path) for path in paths]


def batch_of(found: Sequence[Mapping[str, str]], block: bytes) -> Json:
    """Return messages under one signature."""
    size = len(found)
    root, paths = rooted([bytes.fromhex(each["leaf"]) for each in found])
    signature = SIGNER.sign(P + b"root\0" + SKID + size.to_bytes(2, "big") + root)
    envelopes = [
        packed(
            [1, bytes.fromhex(each["header"]), block, bytes.fromhex(each["ciphertext"]), signature, size, at, paths[at]]
        ).hex()
        for at, each in enumerate(found)
    ]
    return {
        "root": root.hex(), "signature": signature.hex(), "paths": [path.hex() for path in paths],
        "envelopes": envelopes,
    }  # fmt: skip


def alone(given: Mapping[str, Any], block: bytes, *, suite: int = 2) -> str:
    envelope: str = batch_of([sealed(given, block, suite=suite)], block)["envelopes"][0]
    return envelope


def negatives(first: Mapping[str, Any], block: bytes, bound: bytes) -> list[Json]:
    """Return messages that must be refused. Signature and content hold in all of them but the last.

    Args:
        first: Inputs of the message that they vary.
        block: The good key block.
        bound: The data key, wrapped to the recipient as a wrap of suite 1 says what it is bound to.
    """

    def case(why: str, error: str, envelope: str, *, step: str = "decrypt", allowed: Sequence[int] = (2,)) -> Json:
        return {"why": why, "error": error, "step": step, "allowed": list(allowed), "envelope": envelope}

    good: dict[tuple[str, bytes], bytes] = {(rid, rkid): wrapped for rid, rkid, wrapped in msgpack.unpackb(block)[2]}
    wrapped, group = good["billing", KIDS["billing"]], good["group:ops", KIDS["ops"]]

    def with_row(rkid: bytes, given: bytes) -> str:
        return alone(first, block_of([("billing", rkid, given), ("group:ops", KIDS["ops"], group)]))

    def flipped(at: int) -> bytes:
        return wrapped[:at] + bytes([wrapped[at] ^ 1]) + wrapped[at + 1 :]

    whole = alone(first, block)
    signature_at = bytes.fromhex(whole).index(b"\xc4\x40") + 2
    forged = bytearray.fromhex(whole)
    forged[signature_at] ^= 1
    return [
        case("a message of suite 1 where only suite 2 is allowed", "UnsupportedError", alone(first, block, suite=1),
             step="verify"),
        case("a message of suite 2 where only suite 1 is allowed", "UnsupportedError", whole, step="verify",
             allowed=(1,)),
        case("suite 3", "UnsupportedError", alone(first, block, suite=3), step="verify", allowed=(2, 1)),
        case("suite 0", "UnsupportedError", alone(first, block, suite=0), step="verify", allowed=(2, 1)),
        case("a key block of suite 2 in a message of suite 1", "MalformedError", alone(first, block, suite=1),
             allowed=(2, 1)),
        case("a wrap as long as those of suite 1", "MalformedError", with_row(KIDS["billing"], wrapped[:80])),
        case("a wrap one byte short", "MalformedError", with_row(KIDS["billing"], wrapped[:-1])),
        case("a wrap one byte long", "MalformedError", with_row(KIDS["billing"], wrapped + b"\0")),
        case("a row for the recipient's key of suite 1", "UnknownKeyError", with_row(OLD_KID, wrapped)),
        case("the capsule of ML-KEM flipped", "DecryptionError", with_row(KIDS["billing"], flipped(0))),
        case("the share of X25519 flipped", "DecryptionError", with_row(KIDS["billing"], flipped(1088))),
        case("a share of X25519 of small order", "DecryptionError",
             with_row(KIDS["billing"], wrapped[:1088] + bytes(32) + wrapped[1120:])),
        case("the wrapped key flipped", "DecryptionError", with_row(KIDS["billing"], flipped(1120))),
        case("the wrap of another recipient", "DecryptionError", with_row(KIDS["billing"], group)),
        case("a wrap that is bound to suite 1", "DecryptionError", with_row(KIDS["billing"], bound)),
        case("no row for the recipient", "AudienceError", alone(first, block_of([("group:ops", KIDS["ops"], group)]))),
        case("signature flipped", "SignatureError", forged.hex(), step="verify"),
    ]  # fmt: skip


def made(before: Mapping[str, Any] | None = None) -> Json:
    """Return the vectors.

    Args:
        before: Those that there are: what is random in them is kept.
    """
    given = messages()
    key = public_of(PRIVATE["billing"])
    if before is not None and opens(bytes.fromhex(before["key_block"])):
        block, bound = bytes.fromhex(before["key_block"]), bytes.fromhex(before["bound_to_suite_1"])
    else:
        block = block_of(fresh_rows(("billing", "billing_next", "ops")))
        bound = wrap(DEK, key, info_of("billing", KIDS["billing"], suite=1))
    found = [sealed(each, block) for each in given]
    return {
        "note": NOTE,
        "realm": REALM,
        "namespace": "messaging",
        "inputs": {
            "sign_private": SIGN.hex(),
            **{f"{name}_private": private.hex() for name, private in PRIVATE.items()},
            "suite_1_private": OLD_PRIVATE.hex(),
            "dek": DEK.hex(),
            "dek_id": DEK_ID.hex(),
            "kiat": KIAT,
            "sender": SENDER,
            "messages": given,
        },
        "sign_public": SIGN_PUBLIC.hex(),
        "skid": SKID.hex(),
        "keys": {
            name: {"public": public_of(private).hex(), "kid": KIDS[name].hex()} for name, private in PRIVATE.items()
        },
        "key_block": block.hex(),
        "bound_to_suite_1": bound.hex(),
        "messages": found,
        "batches": {str(size): batch_of(found[:size], block) for size in (1, 2, 3, 6)},
        "negative": negatives(given[0], block, bound),
    }


def main() -> None:
    """Write the file."""
    before = json.loads(FILE.read_text()) if FILE.exists() else None
    FILE.write_text(json.dumps(made(before), indent=1) + "\n")


if __name__ == "__main__":
    main()
