from collections.abc import Callable
from typing import Any

import msgpack
import pytest

from messaging.core.envelope import Kind
from messaging.errors import ConfigurationError
from messaging.security import bundle_format
from messaging.security.bundle import KeyState, TrustBundle
from messaging.security.bundle_format import check_realm, sign_bundle, verify_bundle
from messaging.security.keys import SigningKey
from messaging.security.strict_json import dump_json
from tests.security.test_keys import SMALL_ED25519
from tests.support.realm import Realm

Payload = dict[str, Any]


@pytest.fixture
def realm() -> Realm:
    return Realm()


def verified(realm: Realm, raw: bytes, *, threshold: int = 1) -> TrustBundle:
    return verify_bundle(raw, roots=[realm.root.public], threshold=threshold, realm="test")


def test_a_signed_bundle_is_read(realm: Realm) -> None:
    found = verified(realm, realm.change())

    assert (found.realm, found.version, found.is_development, found.suites) == ("test", 3, False, (1,))
    assert found.max_lifetime_ms == 7 * 24 * 3_600_000
    assert found.policy.rule_for("users", Kind.COMMAND, "orders.place_order", "orders") is not None
    assert found.policy.escrow.command
    assert not found.policy.escrow.reply


@pytest.mark.parametrize(("signers", "threshold", "enough"), [(1, 1, True), (2, 2, True), (1, 2, False), (0, 1, False)])
def test_enough_pinned_roots_must_have_signed(realm: Realm, signers: int, threshold: int, enough: bool) -> None:
    roots = [realm.root, SigningKey.generate("test")]
    raw = sign_bundle(realm.payload, roots[:signers])

    def verify() -> TrustBundle:
        return verify_bundle(raw, roots=[root.public for root in roots], threshold=threshold, realm="test")

    if enough:
        assert verify().version == 2
    else:
        with pytest.raises(ConfigurationError, match=f"signed by {signers} of"):
            verify()


def test_one_root_that_signs_twice_counts_once(realm: Realm) -> None:
    with pytest.raises(ConfigurationError, match="signed by 1 of"):
        verified(realm, sign_bundle(realm.payload, [realm.root, realm.root]), threshold=2)


def test_a_root_that_is_not_pinned_neither_helps_nor_harms(realm: Realm) -> None:
    stranger = SigningKey.generate("test")

    assert verified(realm, sign_bundle(realm.payload, [stranger, realm.root])).version == 2
    with pytest.raises(ConfigurationError, match="signed by 0 of"):
        verified(realm, sign_bundle(realm.payload, [stranger]))


def test_every_flipped_bit_is_refused(realm: Realm) -> None:
    raw = realm.change()

    for at in range(0, len(raw), 7):
        with pytest.raises(ConfigurationError):
            verified(realm, raw[:at] + bytes([raw[at] ^ 1 << at % 8]) + raw[at + 1 :])


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\x00",
        msgpack.packb([b"{}"]),
        msgpack.packb(["{}", []]),
        msgpack.packb([b"{}", [1]]),
        msgpack.packb([b"{}", [[b"x", 1]]]),
    ],
)
def test_what_is_no_bundle_is_refused(realm: Realm, raw: bytes) -> None:
    with pytest.raises(ConfigurationError):
        verified(realm, raw)


def test_a_signature_of_the_wrong_length_is_refused(realm: Realm) -> None:
    content = dump_json(realm.payload)
    raw = msgpack.packb([content, [[realm.root.kid, b"x" * 63]]])

    with pytest.raises(ConfigurationError, match="does not hold"):
        verified(realm, raw)


def test_a_huge_file_is_not_read(realm: Realm) -> None:
    with pytest.raises(ConfigurationError, match="at most"):
        verified(realm, bytes(bundle_format.BUNDLE_MAX + 1))


@pytest.mark.parametrize(("reason", "state"), [("compromise", KeyState.COMPROMISED), ("retired", KeyState.RETIRED)])
@pytest.mark.parametrize("part", ["sign", "enc"])
def test_a_revocation_outranks_the_state(realm: Realm, reason: str, state: KeyState, part: str) -> None:
    raw = realm.change(realm.revoke("orders", reason, part=part))

    found = verified(realm, raw)

    entry = next(iter(found.signing["orders"].values())) if part == "sign" else found.encryption["orders"][0]
    assert entry.state is state


def setting(*path: str | int, to: object) -> Callable[[Payload], None]:
    def edit(payload: Payload) -> None:
        place: Any = payload
        for step in path[:-1]:
            place = place[step]
        if isinstance(place, list) and path[-1] == len(place):
            place.append(to)
        else:
            place[path[-1]] = to

    return edit


def copying(source: tuple[str | int, ...], target: tuple[str | int, ...]) -> Callable[[Payload], None]:
    def edit(payload: Payload) -> None:
        found: Any = payload
        for step in source:
            found = found[step]
        setting(*target, to=found)(payload)

    return edit


RULE = {"from": "users", "kind": "command", "name": "orders.x", "to": "orders"}
GRANT = {"operator": "ops:alice", "name": "orders.x", "to": "orders", "force": False}
KEY = ("services", "orders", "sign", 0)
FIRST_RULE = ("policy", "send", 0)
FIRST_GRANT = ("policy", "replay", 0)


@pytest.mark.parametrize(
    "edit",
    [
        setting("surprise", to=1),
        setting("realm", to="other"),
        setting("dev", to=True),
        setting("dev", to=0),
        setting("version", to=0),
        setting("version", to=1.0),
        setting("version", to=True),
        setting("issued", to="now"),
        setting("expires", to=0),
        setting("suites", to=[3]),
        setting("suites", to=[1, 1]),
        setting("suites", to=[2.0]),
        setting("suites", to=["1"]),
        setting("suites", to=[[1]]),
        setting("suites", to=[True]),
        setting("suites", to=[]),
        setting("max_lifetime_s", to=0),
        setting("max_lifetime_s", to=30 * 24 * 3600 + 1),
        setting("services", "Orders", to={"sign": [], "enc": []}),
        setting("services", "ops:bob", to={"sign": [], "enc": []}),
        setting("services", "event", to={"sign": [], "enc": []}),
        setting("services", "\u043erders", to={"sign": [], "enc": []}),
        setting("services", "orders", "surprise", to=1),
        setting("operators", "bob", to={"sign": [], "enc": []}),
        setting("groups", "ops", to={"enc": [], "members": []}),
        setting("groups", "group:", to={"enc": [], "members": []}),
        setting("groups", "group:ops", "members", to=["ops:nobody"]),
        setting("groups", "group:ops", "members", to=["ops:alice", "ops:alice"]),
        setting("groups", "group:ops", "enc", to=[]),
        setting(*KEY, "state", to="compromised"),
        setting(*KEY, "state", to="ACTIVE"),
        setting(*KEY, "alg", to=2),
        setting(*KEY, "kid", to="00" * 8),
        setting(*KEY, "kid", to="00" * 7),
        setting(*KEY, "pub", to="00" * 31),
        setting(*KEY, "pub", to="AA" * 32),
        setting(*KEY, "not_before", to=1.5),
        setting(*KEY, "note", to="x"),
        copying(KEY, ("services", "orders", "sign", 1)),
        copying(KEY, ("services", "users", "sign", 1)),
        copying(("services", "orders", "enc", 0), ("groups", "group:ops", "enc", 1)),
        setting("revoked", 0, to={"kid": "00" * 8, "at": 1, "reason": "because"}),
        setting("revoked", 0, to={"kid": "00" * 8, "at": 1}),
        setting("revoked", 0, to={"kid": "00" * 8, "at": 1, "reason": "retired", "by": "x"}),
        setting("revoked", to=[{"kid": "00" * 8, "at": 1, "reason": "retired"}] * 2),
        setting("policy", "surprise", to=1),
        setting(*FIRST_RULE, "from", to="nobody"),
        setting(*FIRST_RULE, "from", to="group:ops"),
        setting(*FIRST_RULE, "kind", to="reply"),
        setting(*FIRST_RULE, "kind", to="Command"),
        setting(*FIRST_RULE, "name", to="*"),
        setting(*FIRST_RULE, "name", to="billing.*"),
        setting(*FIRST_RULE, "to", to="users"),
        setting(*FIRST_RULE, to={**RULE, "unless": "x"}),
        setting(*FIRST_RULE, to={**RULE, "name": "shop.*", "to": "shop"}),
        setting(*FIRST_GRANT, "operator", to="users"),
        setting(*FIRST_GRANT, "operator", to="ops:nobody"),
        setting(*FIRST_GRANT, "name", to="orders*"),
        setting(*FIRST_GRANT, "to", to="ops:alice"),
        setting(*FIRST_GRANT, "to", to="nobody"),
        setting(*FIRST_GRANT, "force", to=1),
        setting(*FIRST_GRANT, to={**GRANT, "until": 1}),
        setting("policy", "subscribe", "orders", to=[]),
        setting("policy", "subscribe", "orders.x", to=["nobody"]),
        setting("policy", "subscribe", "orders.x", to=["ops:alice"]),
        setting("policy", "subscribe", "orders.x", to=["users", "users"]),
        setting("policy", "subscribe", "orders.x", to=[f"s{at}" for at in range(17)]),
        setting("policy", "escrow", "fault", to=True),
        setting("policy", "escrow", "reply", to="no"),
    ],
)
def test_whatever_is_not_strictly_in_form_is_refused(realm: Realm, edit: Callable[[Payload], None]) -> None:
    with pytest.raises(ConfigurationError):
        verified(realm, realm.change(edit))


def test_the_root_is_nobodys_key(realm: Realm) -> None:
    entry = {"kid": realm.root.kid.hex(), "alg": 1, "pub": realm.root.public.raw.hex(), "state": "active"}

    with pytest.raises(ConfigurationError, match="serves twice"):
        verified(realm, realm.change(setting(*KEY, to={**entry, "not_before": None, "not_after": None})))


@pytest.mark.parametrize("raw", SMALL_ED25519, ids=lambda raw: raw.hex()[:8])
def test_a_bundle_with_a_small_order_key_is_refused(realm: Realm, raw: bytes) -> None:
    with pytest.raises(ConfigurationError, match="small order"):
        verified(realm, realm.change(setting(*KEY, "pub", to=raw.hex())))


def test_a_repeated_field_is_refused(realm: Realm) -> None:
    content = dump_json(realm.payload).replace(b'"version":2', b'"version":1,"version":2')
    raw = msgpack.packb([content, [[realm.root.kid, realm.root.sign(b"messaging/1/bundle\0" + content)]]])

    with pytest.raises(ConfigurationError, match="repeated"):
        verified(realm, raw)


def test_development_realms_and_only_they_are_for_development(realm: Realm) -> None:
    root = SigningKey.generate("dev-1")
    payload = realm.payload | {"realm": "dev-1", "dev": False}

    with pytest.raises(ConfigurationError, match="for development"):
        verify_bundle(sign_bundle(payload, [root]), roots=[root.public], threshold=1, realm="dev-1")


@pytest.mark.parametrize("realm_name", ["", "x" * 65, "prod\n", "pröd"])
def test_a_realm_is_short_printable_ascii(realm_name: str) -> None:
    with pytest.raises(ConfigurationError, match="cannot name a realm"):
        check_realm(realm_name)


def test_escrow_may_be_off_without_a_group(realm: Realm) -> None:
    def edit(payload: Payload) -> None:
        payload["groups"] = {}
        payload["policy"]["escrow"] = dict.fromkeys(("command", "event", "request", "reply"), False)

    assert verified(realm, realm.change(edit)).members == {}
