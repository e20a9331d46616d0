from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from messaging.core.envelope import Kind
from messaging.errors import (
    AudienceError,
    Disposition,
    MalformedError,
    PolicyError,
    SealError,
    SignatureError,
    StaleMessageError,
    UnknownKeyError,
)
from messaging.security import checks, merkle, suite
from messaging.security.bundle import TrustBundle
from messaging.security.checks import ROOTS_LIFE_S, Checks
from messaging.security.development import identity_entry
from messaging.security.keys import SigningKey, VerifyKey
from messaging.security.open import Opener
from messaging.security.outer import CONTENT_MAX, Parts, join_parts, split_parts
from messaging.security.trust import TrustStore
from messaging.security.verified import Verified
from tests.support.realm import EVERY_KIND, NAMES, START_MS, Realm, alter_header, resign

ORDER = "orders.place_order.v1"
# Fields of the header, by number.
KIND, TYPE, SENDER, SKID, AUDIENCE, EXCHANGE, ROUTING_KEY, MID, REPLY_TO = 1, 2, 3, 4, 5, 6, 7, 8, 13


@pytest.fixture
def realm() -> Realm:
    return Realm()


def verify(realm: Realm, body: bytes, name: str = "orders") -> Verified:
    return realm.opener(name).verify(body, kinds=EVERY_KIND)


def refusal(realm: Realm, body: bytes, name: str = "orders") -> SealError:
    with pytest.raises(SealError) as caught:
        verify(realm, body, name)
    return caught.value


def test_a_message_in_time_within_rights_and_signed_is_accepted(realm: Realm) -> None:
    assert verify(realm, realm.sealed()).accepted


@pytest.mark.parametrize(
    ("seconds", "disposition"),
    [(60 + 3600, None), (60 + 3600 + 1, Disposition.EXPIRED), (-60, None), (-61, Disposition.LAG)],
)
def test_time_has_a_minute_of_tolerance(realm: Realm, seconds: int, disposition: Disposition | None) -> None:
    body = realm.sealed(expires_at_ms=START_MS + 3_600_000)
    realm.clock.now_ms += seconds * 1000

    if disposition is None:
        assert verify(realm, body).accepted
        return
    error = refusal(realm, body)

    assert type(error) is StaleMessageError
    assert error.disposition is disposition
    assert isinstance(error.evidence, Verified)
    assert not error.evidence.accepted


def test_a_life_beyond_what_the_bundle_allows_is_refused(realm: Realm) -> None:
    body = realm.sealed(expires_at_ms=START_MS + 7 * 24 * 3_600_000)
    realm.publish(lambda payload: payload.update(max_lifetime_s=3600))

    error = refusal(realm, body)

    assert (type(error), error.disposition) == (StaleMessageError, Disposition.REFUSED)


@pytest.mark.parametrize("changes", [{"fields": {3: "billing"}}, {"fields": {4: b"k" * 8}}])
def test_an_unknown_key_is_a_claim_by_nobody(realm: Realm, changes: dict[str, Any]) -> None:
    error = refusal(realm, resign(realm.sealed(), realm.signer("users"), **changes))

    assert (type(error), error.disposition, error.evidence) == (UnknownKeyError, Disposition.UNAUTHENTIC, None)


def test_an_unknown_key_of_a_newer_bundle_may_be_our_own_lag(realm: Realm) -> None:
    newcomer = realm.new_keyring("shop")
    realm.keyrings["shop"] = newcomer
    realm.stores["shop"] = TrustStore(newcomer, ambient=realm.clock.ambient)

    def add(payload: dict[str, Any]) -> None:
        payload["services"]["shop"] = identity_entry(newcomer)
        payload["policy"]["send"].append({"from": "shop", "kind": "command", "name": "orders.*", "to": "orders"})

    raw = realm.publish(add, to="shop")
    body = realm.sealed(sender="shop")

    error = refusal(realm, body)
    realm.stores["orders"].replace(raw)

    assert (type(error), error.disposition, error.evidence) == (UnknownKeyError, Disposition.LAG, None)
    assert verify(realm, body).sender == "shop"


def test_a_grant_of_a_newer_bundle_may_be_our_own_lag(realm: Realm) -> None:
    rule = {"from": "billing", "kind": "command", "name": "orders.*", "to": "orders"}
    raw = realm.publish(lambda payload: payload["policy"]["send"].append(rule), to="billing")
    body = realm.sealed(sender="billing")

    error = refusal(realm, body)
    realm.stores["orders"].replace(raw)

    assert (type(error), error.disposition) == (PolicyError, Disposition.LAG)
    assert isinstance(error.evidence, Verified)
    assert verify(realm, body).accepted


def test_what_policy_denies_is_authentic_and_refused(realm: Realm) -> None:
    body = realm.sealed()
    realm.publish(lambda payload: payload["policy"]["send"].clear())

    error = refusal(realm, body)

    assert (type(error), error.disposition) == (PolicyError, Disposition.REFUSED)
    assert isinstance(error.evidence, Verified)


@pytest.mark.parametrize("state", ["next", "retiring"])
def test_keys_that_come_and_go_are_accepted(realm: Realm, state: str) -> None:
    body = realm.sealed()
    realm.publish(lambda payload: payload["services"]["users"]["sign"][0].update(state=state))

    assert verify(realm, body).key_state.value == state


@pytest.mark.parametrize(
    "edit",
    [
        {"state": "retired"},
        {"not_before": START_MS + 1},
        {"not_after": START_MS - 1},
    ],
)
def test_a_key_out_of_use_is_authentic_and_refused(realm: Realm, edit: dict[str, object]) -> None:
    body = realm.sealed()
    realm.publish(lambda payload: payload["services"]["users"]["sign"][0].update(edit))

    error = refusal(realm, body)

    assert (type(error), error.disposition) == (UnknownKeyError, Disposition.REFUSED)


def test_a_backdated_message_under_a_retired_key_is_refused(realm: Realm) -> None:
    realm.publish(realm.revoke("users", "retired"))
    # The thief signs with the key itself: the sender's own checks are no obstacle.
    body = resign(Realm.sealed(Realm(realm.clock)), realm.signer("users"), fields={4: realm.signer("users").kid})

    error = refusal(realm, body)

    assert (type(error), error.disposition) == (UnknownKeyError, Disposition.REFUSED)


def test_whatever_a_compromised_key_signed_is_nobodys(realm: Realm) -> None:
    body = realm.sealed()
    realm.publish(realm.revoke("users", "compromise"))

    error = refusal(realm, body)

    assert (type(error), error.disposition, error.evidence) == (UnknownKeyError, Disposition.UNAUTHENTIC, None)


def test_a_refusal_is_only_told_once_the_signature_holds(realm: Realm) -> None:
    body = resign(realm.sealed(), realm.signer("billing"))
    realm.publish(lambda payload: payload["policy"]["send"].clear())
    realm.clock.advance(400_000)

    error = refusal(realm, body)

    assert (type(error), error.disposition, error.evidence) == (SignatureError, Disposition.UNAUTHENTIC, None)


def test_the_first_refusal_is_the_one_that_is_told(realm: Realm) -> None:
    body = realm.sealed()
    realm.publish(lambda payload: payload["policy"]["send"].clear())

    error = refusal(realm, body, "billing")

    assert type(error) is AudienceError


def test_without_a_bundle_the_trouble_is_local(realm: Realm) -> None:
    body = realm.sealed()
    realm.stores["orders"] = TrustStore(realm.keyrings["orders"], ambient=realm.clock.ambient)

    error = refusal(realm, body)

    assert error.disposition is Disposition.LOCAL


def test_a_bundle_expired_beyond_grace_is_local_trouble_too(realm: Realm) -> None:
    body = realm.sealed()
    realm.clock.advance(500 * 24 * 3600)

    assert refusal(realm, body).disposition is Disposition.LOCAL


def test_only_faults_and_replays_may_exceed_the_cap(realm: Realm) -> None:
    body = resign(realm.sealed(), realm.signer("users"), content=bytes(CONTENT_MAX + 1))

    with pytest.raises(MalformedError, match="content"):
        verify(realm, body)


def test_an_operator_publishes_an_event_of_others_by_a_grant(realm: Realm) -> None:
    body = realm.sealed(kind=Kind.EVENT, name="orders.order_placed", sender="ops:alice")
    accepted = verify(realm, body, "billing")

    realm.publish(lambda payload: payload["policy"]["send"].pop())

    assert accepted.sender == "ops:alice"
    assert type(refusal(realm, body, "billing")) is PolicyError


def counting(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    calls: list[bytes] = []
    holds = VerifyKey.holds

    def counted(self: VerifyKey, signature: bytes, statement: bytes) -> bool:
        calls.append(signature)
        return holds(self, signature, statement)

    monkeypatch.setattr(VerifyKey, "holds", counted)
    return calls


@pytest.fixture
def batch(realm: Realm) -> list[bytes]:
    sealer = realm.sealer("users")
    return list(sealer.sign([sealer.prepare(realm.envelope(), routing_key=ORDER) for _ in range(64)]))


def test_a_batch_costs_one_curve_operation(realm: Realm, batch: list[bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    opener, calls = realm.opener("orders"), counting(monkeypatch)

    for body in batch:
        opener.verify(body, kinds=EVERY_KIND)

    assert len(calls) == 1


def test_single_messages_are_verified_each_time(realm: Realm, monkeypatch: pytest.MonkeyPatch) -> None:
    opener, calls, body = realm.opener("orders"), counting(monkeypatch), realm.sealed()

    for _ in range(3):
        opener.verify(body, kinds=EVERY_KIND)

    assert len(calls) == 3


@pytest.mark.parametrize(
    "change",
    [lambda realm: realm.clock.advance(ROOTS_LIFE_S), lambda realm: realm.publish()],
    ids=["age", "another bundle"],
)
def test_a_root_is_proven_again(
    realm: Realm, batch: list[bytes], monkeypatch: pytest.MonkeyPatch, change: Callable[[Realm], Any]
) -> None:
    opener, calls = realm.opener("orders"), counting(monkeypatch)
    opener.verify(batch[0], kinds=EVERY_KIND)
    change(realm)

    opener.verify(batch[1], kinds=EVERY_KIND)

    # Bundles are verified by the same operation.
    assert calls.count(split_parts(batch[1]).signature) == 2


def batch_of(signer: SigningKey, *messages: Parts) -> list[bytes]:
    """Return messages as one batch: what whoever holds that key can make of any headers."""
    size = len(messages)
    root, paths = merkle.paths([message.leaf() for message in messages])
    signature = signer.sign(suite.root_statement(signer.kid, size, root))
    return [
        join_parts(replace(message, signature=signature, size=size, index=index, path=path))
        for index, (message, path) in enumerate(zip(messages, paths, strict=True))
    ]


def test_a_proven_root_vouches_for_nobody_but_its_signer(realm: Realm) -> None:
    opener, signer, usual = realm.opener("orders"), realm.signer("billing"), split_parts(realm.sealed())
    own = replace(usual, header=alter_header(usual.header, {SENDER: "billing", SKID: signer.kid}))
    foreign = replace(usual, header=alter_header(usual.header, {MID: bytes(16)}))

    of_billing, in_the_name_of_users = batch_of(signer, own, foreign)

    with pytest.raises(PolicyError):
        opener.verify(of_billing, kinds=EVERY_KIND)
    with pytest.raises(SignatureError):
        opener.verify(in_the_name_of_users, kinds=EVERY_KIND)


def test_a_proven_root_vouches_for_no_other_key_of_its_signer(realm: Realm) -> None:
    opener, signer, usual = realm.opener("orders"), realm.signer("users"), split_parts(realm.sealed())
    fresh = realm.new_keyring("users")
    realm.publish(lambda payload: payload["services"]["users"]["sign"].extend(identity_entry(fresh)["sign"]))
    other = replace(usual, header=alter_header(usual.header, {SKID: fresh.signing[0].kid}))

    of_this_key, in_the_name_of_the_other = batch_of(signer, usual, other)

    assert opener.verify(of_this_key, kinds=EVERY_KIND).accepted
    with pytest.raises(SignatureError):
        opener.verify(in_the_name_of_the_other, kinds=EVERY_KIND)


def test_a_proven_root_needs_its_own_signature_and_size(realm: Realm) -> None:
    opener, usual = realm.opener("orders"), split_parts(realm.sealed())
    first, *_ = batch_of(realm.signer("users"), usual, usual, usual)
    parts = split_parts(first)
    # The first of three has a path like the first of four, to the same root.
    changed = [replace(parts, signature=bytes(64)), replace(parts, size=4)]

    assert opener.verify(first, kinds=EVERY_KIND).accepted
    for other in changed:
        with pytest.raises(SignatureError):
            opener.verify(join_parts(other), kinds=EVERY_KIND)


def test_a_key_revoked_while_its_root_is_known_is_refused_at_once(realm: Realm, batch: list[bytes]) -> None:
    opener = realm.opener("orders")
    opener.decrypt(opener.verify(batch[0], kinds=EVERY_KIND))
    realm.publish(realm.revoke("users", "compromise"))

    with pytest.raises(UnknownKeyError):
        opener.verify(batch[1], kinds=EVERY_KIND)


def test_one_corrupted_member_harms_no_other(realm: Realm, batch: list[bytes]) -> None:
    opener: Opener = realm.opener("orders")
    at = batch[7].index(b"orders.place_order.v1") - 60
    batch[7] = batch[7][:at] + bytes([batch[7][at] ^ 1]) + batch[7][at + 1 :]
    accepted = 0

    for body in batch:
        try:
            accepted += opener.decrypt(opener.verify(body, kinds=EVERY_KIND)).payload == b"\x81\xa1n\x01"
        except SealError:
            continue

    assert accepted == 63


def test_steps_one_to_three_need_no_bundle(realm: Realm) -> None:
    store = TrustStore(realm.keyrings["orders"], ambient=realm.clock.ambient)
    checks = Checks(store, NAMES, ambient=realm.clock.ambient, suites=frozenset({1}))

    assert checks.parse(realm.sealed()).header.name == "orders.place_order"


def test_every_message_of_every_batch_verifies(realm: Realm) -> None:
    sealer, opener = realm.sealer("users"), realm.opener("orders")
    unsigned = [sealer.prepare(realm.envelope(), routing_key=ORDER) for _ in range(128)]

    for size in range(1, 129):
        for at, body in enumerate(sealer.sign(unsigned[:size])):
            assert opener.verify(body, kinds=EVERY_KIND).leaf == unsigned[at].leaf


def test_a_grant_withdrawn_while_it_is_remembered_is_refused_at_once(realm: Realm) -> None:
    opener = realm.opener("orders")
    assert opener.verify(realm.sealed(), kinds=EVERY_KIND).accepted
    late = realm.sealed()
    realm.publish(lambda payload: payload["policy"]["send"].clear())

    with pytest.raises(PolicyError):
        opener.verify(late, kinds=EVERY_KIND)


def test_a_grant_to_one_sender_is_none_to_another(realm: Realm) -> None:
    opener = realm.opener("orders")
    assert opener.verify(realm.sealed(), kinds=EVERY_KIND).accepted
    forged = resign(realm.sealed(), realm.signer("billing"), fields={3: "billing", 4: realm.signer("billing").kid})

    with pytest.raises(PolicyError):
        opener.verify(forged, kinds=EVERY_KIND)


def test_a_grant_for_one_name_or_kind_is_none_for_another(realm: Realm) -> None:
    opener, signer = realm.opener("orders"), realm.signer("billing")
    one_name = {"from": "billing", "kind": "command", "name": "orders.place_order", "to": "orders"}
    realm.publish(lambda payload: payload["policy"]["send"].append(one_name))
    mine = {SENDER: "billing", SKID: signer.kid}
    asking = {
        KIND: int(Kind.REQUEST),
        EXCHANGE: "messaging.requests",
        REPLY_TO: "messaging.billing.replies." + "a" * 16,
    }
    granted, *denied = (
        resign(realm.sealed(), signer, fields={**mine, **fields})
        for fields in ({}, {TYPE: "orders.cancel/1", ROUTING_KEY: "orders.cancel.v1"}, asking)
    )

    assert opener.verify(granted, kinds=EVERY_KIND).accepted
    for other in denied:
        with pytest.raises(PolicyError):
            opener.verify(other, kinds=EVERY_KIND)


def test_a_grant_to_replay_at_one_service_is_none_at_another(realm: Realm) -> None:
    opener = realm.opener("ops:alice")
    original = realm.sealed(kind=Kind.EVENT, name="orders.order_placed", sender="orders")
    at_orders = realm.replay(original, name="orders.order_placed", part="events")
    elsewhere = {AUDIENCE: "billing", EXCHANGE: "messaging.billing.return", ROUTING_KEY: "messaging.billing.events"}
    at_billing = resign(at_orders, realm.signer("ops:alice"), fields=elsewhere)

    assert opener.verify_dead(at_orders, service="orders").is_raw
    with pytest.raises(PolicyError):
        opener.verify_dead(at_billing, service="billing")


def test_remembered_grants_are_bounded(realm: Realm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "GRANTED_MAX", 1)
    opener = realm.opener("orders")

    for version in (1, 2, 1):
        assert opener.verify(realm.sealed(name=f"orders.place_order_{version}"), kinds=EVERY_KIND).accepted

    assert len(opener._checks._granted) == 1


# ---- what was accepted before


def acquainted(realm: Realm, monkeypatch: pytest.MonkeyPatch) -> tuple[Opener, list[Any]]:
    """Return an opener that has accepted a message of users, and what is asked of policy from then on."""
    opener = realm.opener("orders")
    opener.verify(realm.sealed(), kinds=EVERY_KIND)
    asked: list[Any] = []
    refusal_of = Checks.policy_refusal

    def counted(self: Checks, claim: checks.Claim, bundle: TrustBundle) -> SealError | None:
        asked.append(claim.header.address)
        return refusal_of(self, claim, bundle)

    monkeypatch.setattr(Checks, "policy_refusal", counted)
    return opener, asked


def test_what_is_like_an_accepted_message_is_asked_for_its_own_alone(
    realm: Realm, monkeypatch: pytest.MonkeyPatch
) -> None:
    opener, asked = acquainted(realm, monkeypatch)

    accepted = [opener.verify(realm.sealed(), kinds=EVERY_KIND) for _ in range(3)]

    assert all(one.accepted for one in accepted)
    assert asked == []


@pytest.mark.parametrize(
    ("seconds", "disposition"),
    [(60 + 3600, None), (60 + 3600 + 1, Disposition.EXPIRED), (-60, None), (-61, Disposition.LAG)],
)
def test_what_is_like_an_accepted_message_has_times_of_its_own(
    realm: Realm, monkeypatch: pytest.MonkeyPatch, seconds: int, disposition: Disposition | None
) -> None:
    opener, asked = acquainted(realm, monkeypatch)
    body = realm.sealed(expires_at_ms=START_MS + 3_600_000)
    realm.clock.now_ms += seconds * 1000

    if disposition is None:
        assert opener.verify(body, kinds=EVERY_KIND).accepted
        assert asked == []
        return
    with pytest.raises(StaleMessageError) as caught:
        opener.verify(body, kinds=EVERY_KIND)

    assert caught.value.disposition is disposition
    assert isinstance(caught.value.evidence, Verified)


def test_what_is_like_an_accepted_message_may_not_live_longer(realm: Realm, monkeypatch: pytest.MonkeyPatch) -> None:
    opener, _ = acquainted(realm, monkeypatch)
    body = resign(realm.sealed(), realm.signer("users"), fields={10: START_MS + 8 * 24 * 3_600_000})

    with pytest.raises(StaleMessageError) as caught:
        opener.verify(body, kinds=EVERY_KIND)

    assert caught.value.disposition is Disposition.REFUSED


def test_what_is_like_an_accepted_message_was_issued_while_its_key_was_in_use(realm: Realm) -> None:
    realm.publish(lambda payload: payload["services"]["users"]["sign"][0].update(not_after=START_MS + 500))
    opener = realm.opener("orders")
    opener.verify(realm.sealed(), kinds=EVERY_KIND)

    body = resign(realm.sealed(), realm.signer("users"), fields={9: START_MS + 501})

    with pytest.raises(UnknownKeyError):
        opener.verify(body, kinds=EVERY_KIND)


def test_what_is_like_an_accepted_message_needs_a_signature_of_its_own(
    realm: Realm, monkeypatch: pytest.MonkeyPatch
) -> None:
    opener, _ = acquainted(realm, monkeypatch)

    with pytest.raises(SignatureError):
        opener.verify(resign(realm.sealed(), realm.signer("billing")), kinds=EVERY_KIND)


def test_what_was_accepted_from_one_queue_was_not_from_another(realm: Realm, monkeypatch: pytest.MonkeyPatch) -> None:
    opener, asked = acquainted(realm, monkeypatch)

    with pytest.raises(AudienceError):
        opener.verify(realm.sealed(), kinds=frozenset({Kind.EVENT}))
    assert asked == []
    assert opener.verify(realm.sealed(), kinds=EVERY_KIND, queue="another").accepted

    assert len(asked) == 1


def test_a_newer_bundle_asks_everything_again(realm: Realm, monkeypatch: pytest.MonkeyPatch) -> None:
    opener, asked = acquainted(realm, monkeypatch)
    body = realm.sealed()
    realm.publish()
    opener.verify(body, kinds=EVERY_KIND)
    realm.publish(lambda payload: payload["policy"]["send"].clear())

    with pytest.raises(PolicyError):
        opener.verify(body, kinds=EVERY_KIND)

    assert len(asked) == 2


def test_what_is_remembered_of_accepted_messages_is_bounded(realm: Realm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "STANDINGS_MAX", 1)
    opener = realm.opener("orders")

    for version in (1, 2, 1):
        assert opener.verify(realm.sealed(name=f"orders.place_order_{version}"), kinds=EVERY_KIND).accepted

    assert len(opener._checks._standings) == 1
