"""What is new in a bundle waits half a minute at the sender; what is gone is gone at once; receivers never wait."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from messaging.core.envelope import Kind
from messaging.errors import ConfigurationError, NotYetUsableError, PolicyError
from messaging.security.bundle import OPS_GROUP, TrustBundle
from messaging.security.development import encryption_entry, identity_entry, key_entry
from messaging.security.keyblock import parse_block
from messaging.security.keys import DecryptionKey, SigningKey
from messaging.security.outer import split_parts
from messaging.security.policy import Policy, ReplayGrant, Rule, matches
from messaging.security.settling import SETTLE_S, settled
from messaging.security.trust import TrustStore
from tests.support.realm import EVERY_KIND, REALM, START_MS, Realm

GRANT = {"from": "billing", "kind": "command", "name": "orders.*", "to": "orders"}
Edit = Callable[[dict[str, Any]], object]


@pytest.fixture
def realm() -> Realm:
    return Realm()


def grow(realm: Realm, edit: Edit, *, at: tuple[str, ...] = ("users", "billing", "ops:alice")) -> bytes:
    """Put a bundle in force that was signed just now, with the senders alone: orders lags behind."""

    def fresh(payload: dict[str, Any]) -> None:
        payload["issued"] = realm.clock.now_ms
        edit(payload)

    raw = realm.change(fresh)
    for name in at:
        realm.stores[name].replace(raw)
    return raw


def allow(payload: dict[str, Any]) -> None:
    payload["policy"]["send"].append(GRANT)


def rotate_signing(realm: Realm, name: str, *, former: str = "retiring") -> SigningKey:
    """Give an identity a new signing key that is active at once; returns the key."""
    key = SigningKey.generate(REALM)
    realm.keyrings[name] = replace(realm.keyrings[name], signing=(key, *realm.keyrings[name].signing))

    def edit(payload: dict[str, Any]) -> None:
        entries = payload["services"][name]["sign"]
        entries[0]["state"] = former
        entries.append(key_entry(key.kid, key.public.algorithm, key.public.raw))

    grow(realm, edit)
    return key


def accepted_by_the_old(realm: Realm, body: bytes) -> bool:
    """Open a message where the bundle before is in force."""
    opener = realm.opener("orders")
    opener.decrypt(opener.verify(body, kinds=EVERY_KIND))
    return True


def signer_of(realm: Realm, body: bytes) -> bytes:
    """Return the id of the key that signed, where the newest bundle is in force."""
    opener = realm.opener("users" if realm.stores["users"].current.version > 2 else "orders")
    return opener.verify_archived(body).header.address.skid


def rows_of(body: bytes) -> list[tuple[str, bytes]]:
    return [(row.rid, row.rkid) for row in parse_block(split_parts(body).block, suite=1).rows]


def test_a_new_grant_is_used_half_a_minute_after_it_was_signed(realm: Realm) -> None:
    grow(realm, allow)
    realm.clock.advance(10)

    with pytest.raises(NotYetUsableError, match=r"version 3 lets 'billing' send command .* used in 20 s") as refused:
        realm.sealed(sender="billing")
    realm.clock.advance(19)
    with pytest.raises(NotYetUsableError, match="in 1 s"):
        realm.sealed(sender="billing")
    realm.clock.advance(1)

    assert realm.sealed(sender="billing")
    assert refused.value.transient
    assert isinstance(refused.value, PolicyError)


def test_a_receiver_accepts_by_a_new_grant_at_once(realm: Realm) -> None:
    grow(realm, allow, at=("billing", "orders"))
    with pytest.raises(NotYetUsableError):
        realm.sealed(sender="billing")

    # Another replica of billing, which starts now and has no bundle before.
    realm.stores["billing"] = TrustStore(realm.keyrings["billing"], ambient=realm.clock.ambient)
    realm.stores["billing"].replace(realm.change())
    body = realm.sealed(sender="billing")

    assert realm.opener("orders").verify(body, kinds=EVERY_KIND).sender == "billing"


def test_what_nobody_grants_is_refused_for_good_meanwhile_too(realm: Realm) -> None:
    grow(realm, allow)

    with pytest.raises(PolicyError, match="add") as refused:
        realm.sealed(sender="billing", kind=Kind.REQUEST, name="orders.get_order")

    assert not refused.value.transient


def test_old_grants_are_used_meanwhile(realm: Realm) -> None:
    grow(realm, allow)

    body = realm.sealed(sender="users")

    assert accepted_by_the_old(realm, body)
    assert realm.opener("orders").verify(body, kinds=EVERY_KIND).bundle_version == 3


def test_a_grant_that_is_taken_away_is_gone_at_once(realm: Realm) -> None:
    grow(realm, lambda payload: payload["policy"]["send"].pop(0))

    with pytest.raises(PolicyError, match="add"):
        realm.sealed(sender="users")


def test_the_first_bundle_of_a_process_is_used_at_once(realm: Realm) -> None:
    raw = grow(realm, allow, at=())
    realm.stores["billing"] = TrustStore(realm.keyrings["billing"], ambient=realm.clock.ambient)

    realm.stores["billing"].replace(raw)

    assert realm.stores["billing"].settles_in_s() == 0
    assert realm.sealed(sender="billing")


def test_development_bundles_are_used_at_once(realm: Realm) -> None:
    store = realm.stores["billing"]
    before, now_ms = store.current, realm.clock.now_ms
    settling = store._settling
    settling.take(replace(before, version=3, is_development=True, issued_at_ms=now_ms), after=before)

    assert settling.view(before) is before


def test_the_same_bundle_again_does_not_begin_the_wait_anew(realm: Realm) -> None:
    raw = grow(realm, allow)
    realm.clock.advance(29)
    realm.stores["billing"].replace(raw)
    realm.clock.advance(1)

    assert realm.sealed(sender="billing")


def test_a_signer_whose_clock_is_ahead_delays_nobody_beyond_half_a_minute(realm: Realm) -> None:
    def ahead(payload: dict[str, Any]) -> None:
        allow(payload)
        payload["issued"] = realm.clock.now_ms + 3_600_000

    grow(realm, ahead)
    waits_s = realm.stores["billing"].settles_in_s()
    realm.clock.advance(SETTLE_S)

    assert waits_s == SETTLE_S
    assert realm.sealed(sender="billing")


def test_two_changes_in_a_row_wait_each_for_itself(realm: Realm) -> None:
    grow(realm, allow)
    realm.clock.advance(20)
    grow(realm, lambda payload: payload["policy"]["send"].append(GRANT | {"kind": "request"}))

    with pytest.raises(NotYetUsableError):
        realm.sealed(sender="billing")
    realm.clock.advance(10)
    assert realm.sealed(sender="billing")
    with pytest.raises(NotYetUsableError):
        realm.sealed(sender="billing", kind=Kind.REQUEST, name="orders.get_order")
    realm.clock.advance(20)
    assert realm.sealed(sender="billing", kind=Kind.REQUEST, name="orders.get_order")


def test_a_replay_grant_waits_too(realm: Realm) -> None:
    original = realm.sealed()
    grow(realm, lambda payload: payload["policy"]["replay"].pop(0))
    with pytest.raises(PolicyError, match="only operators may"):
        realm.replay(original)
    grow(
        realm,
        lambda payload: payload["policy"]["replay"].append(
            {"operator": "ops:alice", "name": "orders.*", "to": "orders", "force": True}
        ),
    )

    with pytest.raises(NotYetUsableError, match="replay"):
        realm.replay(original)
    realm.clock.advance(SETTLE_S)
    assert realm.replay(original)


def test_the_former_signing_key_signs_meanwhile(realm: Realm) -> None:
    former = realm.signer("users").kid
    key = rotate_signing(realm, "users")

    first = realm.sealed()
    realm.clock.advance(SETTLE_S)
    later = realm.sealed()

    assert accepted_by_the_old(realm, first)
    assert (signer_of(realm, first), signer_of(realm, later)) == (former, key.kid)


def test_a_key_that_was_published_before_signs_at_once(realm: Realm) -> None:
    key = SigningKey.generate(REALM)
    realm.keyrings["users"] = replace(realm.keyrings["users"], signing=(key, *realm.keyrings["users"].signing))
    entry = key_entry(key.kid, key.public.algorithm, key.public.raw)
    realm.publish(lambda payload: payload["services"]["users"]["sign"].append(entry | {"state": "next"}))

    def activate(payload: dict[str, Any]) -> None:
        former, new = payload["services"]["users"]["sign"]
        former["state"], new["state"] = "retiring", "active"

    grow(realm, activate)
    body = realm.sealed()

    assert signer_of(realm, body) == key.kid
    assert accepted_by_the_old(realm, body)


@pytest.mark.parametrize("former", ["retired", "compromise"])
def test_a_new_signing_key_does_not_wait_for_a_former_one_that_is_refused(realm: Realm, former: str) -> None:
    revoke = realm.revoke("users", "compromise") if former == "compromise" else lambda _: None
    revoke(realm.payload)
    key = rotate_signing(realm, "users", former="retired")

    assert signer_of(realm, realm.sealed()) == key.kid


def test_a_former_key_that_is_about_to_end_is_no_way_out(realm: Realm) -> None:
    def ending(payload: dict[str, Any]) -> None:
        payload["services"]["users"]["sign"][0]["not_after"] = realm.clock.now_ms + 10_000

    realm.publish(ending)
    key = rotate_signing(realm, "users")

    assert signer_of(realm, realm.sealed()) == key.kid


def test_data_keys_go_to_the_former_encryption_key_meanwhile(realm: Realm) -> None:
    former, key = next(iter(realm.keyrings["orders"].decryption)), DecryptionKey.generate(REALM)

    def rotate(payload: dict[str, Any]) -> None:
        payload["services"]["orders"]["enc"][0]["state"] = "retiring"
        payload["services"]["orders"]["enc"].append(encryption_entry(key))

    grow(realm, rotate)
    first = realm.sealed()
    realm.clock.advance(SETTLE_S)

    assert accepted_by_the_old(realm, first)
    assert ("orders", former) in rows_of(first)
    assert ("orders", key.kid) not in rows_of(first)
    assert ("orders", key.kid) in rows_of(realm.sealed())


def test_nobody_seals_to_a_compromised_encryption_key_meanwhile(realm: Realm) -> None:
    former, key = next(iter(realm.keyrings["orders"].decryption)), DecryptionKey.generate(REALM)

    def rotate(payload: dict[str, Any]) -> None:
        payload["revoked"].append({"kid": former.hex(), "at": START_MS, "reason": "compromise"})
        payload["services"]["orders"]["enc"].append(encryption_entry(key))

    grow(realm, rotate)

    assert [rkid for rid, rkid in rows_of(realm.sealed()) if rid == "orders"] == [key.kid]


def test_a_new_service_is_sent_to_once_the_grant_is_used(realm: Realm) -> None:
    stock = realm.new_keyring("stock")

    def join(payload: dict[str, Any]) -> None:
        payload["services"]["stock"] = identity_entry(stock)
        payload["policy"]["send"].append({"from": "users", "kind": "command", "name": "stock.*", "to": "stock"})

    grow(realm, join)

    with pytest.raises(NotYetUsableError):
        realm.sealed(name="stock.take")
    realm.clock.advance(SETTLE_S)
    assert realm.sealed(name="stock.take")


def test_a_new_reader_of_an_event_gets_its_row_at_once(realm: Realm) -> None:
    store = realm.stores["orders"]
    realm.publish(lambda payload: payload["policy"]["subscribe"]["orders.order_placed"].remove("billing"))

    grow(realm, lambda payload: payload["policy"]["subscribe"]["orders.order_placed"].append("billing"), at=("orders",))
    body = realm.sealed(kind=Kind.EVENT, name="orders.order_placed", sender="orders")

    assert store.settles_in_s() == SETTLE_S
    assert "billing" in dict(rows_of(body))


def test_operators_stay_readers_until_nobody_demands_it(realm: Realm) -> None:
    grow(realm, lambda payload: payload["policy"]["escrow"].update(command=False))

    first = realm.sealed()
    realm.clock.advance(SETTLE_S)

    assert accepted_by_the_old(realm, first)
    assert OPS_GROUP not in dict(rows_of(realm.sealed()))


def test_operators_without_a_usable_key_are_no_readers(realm: Realm) -> None:
    def drop(payload: dict[str, Any]) -> None:
        payload["policy"]["escrow"].update(command=False, event=False)
        payload["groups"][OPS_GROUP]["enc"][0]["state"] = "retired"

    grow(realm, drop)

    assert OPS_GROUP not in dict(rows_of(realm.sealed()))


def test_a_longer_life_is_used_later_and_a_shorter_one_at_once(realm: Realm) -> None:
    week_s = realm.payload["max_lifetime_s"]
    lasting = {"expires_at_ms": realm.clock.now_ms + week_s * 1000 + 60_000}
    grow(realm, lambda payload: payload.update(max_lifetime_s=2 * week_s))
    with pytest.raises(ConfigurationError, match=f"within {week_s} s"):
        realm.sealed(**lasting)
    realm.clock.advance(SETTLE_S)
    assert realm.sealed(**lasting)

    grow(realm, lambda payload: payload.update(max_lifetime_s=week_s))
    with pytest.raises(ConfigurationError, match=f"within {week_s} s"):
        realm.sealed(**lasting)


def test_a_suite_is_used_when_all_accept_it() -> None:
    realm = Realm(suites=(1, 2))
    realm.publish(lambda payload: payload.update(suites=[1]))
    grow(realm, lambda payload: payload.update(suites=[2, 1]))

    first = realm.sealed()
    realm.clock.advance(SETTLE_S)

    assert accepted_by_the_old(realm, first)
    assert realm.stores["users"].for_sending().suite == 2
    grow(realm, lambda payload: payload.update(suites=[2]))
    assert realm.stores["users"].for_sending().suite == 2


def test_a_suite_that_nobody_had_is_used_when_no_other_is_left() -> None:
    realm = Realm(suites=(1, 2))
    realm.publish(lambda payload: payload.update(suites=[1]))
    grow(realm, lambda payload: payload.update(suites=[2]))

    assert realm.stores["users"].for_sending().suite == 2


_PATTERNS = st.sampled_from(
    ["orders.*", "orders.place.*", "orders.place.now", "orders.place", "orders.cancel", "users.*"]
)
_RULES = st.lists(
    st.builds(
        Rule,
        sender=st.sampled_from(["users", "billing"]),
        kind=st.sampled_from([Kind.COMMAND, Kind.REQUEST]),
        name=_PATTERNS,
        to=st.just("orders"),
    ),
    max_size=6,
).map(tuple)
_GRANTS = st.lists(
    st.builds(ReplayGrant, operator=st.just("ops:alice"), name=_PATTERNS, to=st.just("orders"), force=st.booleans()),
    max_size=4,
).map(tuple)
_POLICIES = st.builds(Policy, rules=_RULES, replay=_GRANTS)
_NAMES = ("orders.place", "orders.place.now", "orders.place.later", "orders.cancel", "users.create")
_BUNDLE = Realm().stores["orders"].current


@given(policies=st.lists(_POLICIES, min_size=2, max_size=4))
def test_a_sender_may_what_every_bundle_allows_and_nothing_else(policies: list[Policy]) -> None:
    bundles = [replace(_BUNDLE, policy=policy) for policy in policies]

    view = settled(bundles[0], bundles[1:], now_ms=START_MS).policy

    for name in _NAMES:
        for sender in ("users", "billing"):
            found = view.rule_for(sender, Kind.COMMAND, name, "orders")
            wanted = all(policy.rule_for(sender, Kind.COMMAND, name, "orders") for policy in policies)
            assert (found is not None) == wanted
            assert found is None or matches(found.name, name)
        for force in (False, True):
            found_grant = view.may_replay("ops:alice", name, "orders", force=force)
            assert found_grant == all(
                policy.may_replay("ops:alice", name, "orders", force=force) for policy in policies
            )


@pytest.mark.parametrize(
    ("newer", "older", "common"),
    [
        ("orders.place", "orders.*", ["orders.place"]),
        ("orders.*", "orders.place", ["orders.place"]),
        ("orders.place", "orders.cancel", []),
    ],
)
def test_of_two_patterns_the_narrower_remains_and_of_strangers_neither(
    newer: str, older: str, common: list[str]
) -> None:
    rules = [Rule(sender="users", kind=Kind.COMMAND, name=name, to="orders") for name in (newer, older)]
    grants = [ReplayGrant(operator="ops:alice", name=name, to="orders", force=False) for name in (newer, older)]
    bundles = [
        replace(_BUNDLE, policy=Policy(rules=(rule,), replay=(grant,)))
        for rule, grant in zip(rules, grants, strict=True)
    ]

    view = settled(bundles[0], bundles[1:], now_ms=START_MS).policy

    assert [rule.name for rule in view.rules] == common
    assert [grant.name for grant in view.replay] == common


def test_what_was_cached_under_the_view_is_not_used_after_it(realm: Realm) -> None:
    grow(realm, allow)
    store = realm.stores["billing"]

    views: list[TrustBundle] = [store.for_sending(), store.for_sending()]
    realm.clock.advance(SETTLE_S)
    views.append(store.for_sending())

    assert views[0] is views[1]
    assert views[2] is store.current
    assert len({view.generation for view in views}) == 2
