"""Changes of a bundle's content: every result is one that services accept, and nothing else changes."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from messaging.core.envelope import Kind
from messaging.errors import ConfigurationError
from messaging.security.bundle import OPS_GROUP, KeyState, TrustBundle
from messaging.security.bundle_edit import (
    Content,
    FirstPolicy,
    allow,
    deny,
    first_content,
    renew,
    revoke,
    with_part,
    without_identity,
)
from messaging.security.bundle_format import parse_content
from messaging.security.public_part import part_of
from messaging.security.strict_json import dump_json
from messaging.security.trust_folder import read_content
from tests.support.trusting import NOW, POLICY, Trusting, first, keyring_of


@pytest.fixture
def made(tmp_path: Path) -> Trusting:
    return first(tmp_path)


@pytest.fixture
def content(made: Trusting) -> Content:
    raw = made.folder.current()
    assert raw is not None
    return read_content(raw)


def bundle_of(made: Trusting, content: Content) -> TrustBundle:
    return parse_content(dump_json(content), roots=made.pins.roots, realm=made.pins.realm)


class TestFirst:
    def test_it_follows_the_contracts(self, made: Trusting, content: Content) -> None:
        policy = bundle_of(made, content).policy

        assert policy.rule_for("users", Kind.COMMAND, "orders.place_order", "orders") is not None
        assert policy.rule_for("users", Kind.REQUEST, "orders.get_order", "orders") is not None
        assert policy.rule_for("users", Kind.COMMAND, "orders.wipe", "orders") is None
        assert policy.rule_for("ops:alice", Kind.COMMAND, "orders.place_order", "orders") is None
        assert policy.audience_of_event("orders.order_placed") == ("users",)
        assert policy.may_replay("ops:alice", "orders.order_placed", "users")
        assert not policy.may_replay("ops:alice", "orders.order_placed", "users", force=True)
        assert policy.demands_escrow(Kind.COMMAND)

    def test_a_closed_one_allows_only_what_is_known_to_be_sent(self, made: Trusting) -> None:
        parts = [part_of(keyring) for keyring in made.keyrings.values()]
        closed = FirstPolicy(
            handles=POLICY.handles,
            subscribes={},
            sends={"users": frozenset({("command", "orders.place_order")})},
        )

        rules = first_content("test", parts, closed, now_ms=NOW)["policy"]["send"]

        assert [(rule["from"], rule["name"]) for rule in rules] == [("users", "orders.place_order")]

    def test_without_operators_nothing_is_sealed_to_them(self, made: Trusting) -> None:
        found = first_content(
            "test", [part_of(made.keyrings["orders"])], FirstPolicy(handles={}, subscribes={}), now_ms=1
        )

        assert not any(found["policy"]["escrow"].values())
        assert bundle_of(made, found).services == ("orders",)

    def test_two_parts_of_one_identity_and_a_missing_part_are_refused(self, made: Trusting) -> None:
        part = part_of(made.keyrings["users"])

        with pytest.raises(ConfigurationError, match="two public parts are of 'users'"):
            first_content("test", [part, part], POLICY, now_ms=NOW)
        with pytest.raises(ConfigurationError, match="messaging keys export orders"):
            first_content("test", [part], POLICY, now_ms=NOW)


class TestIdentities:
    def test_a_new_one_is_active_at_once(self, made: Trusting, content: Content) -> None:
        added = with_part(content, part_of(keyring_of("billing", made.pins)))

        assert "billing" in bundle_of(made, added).services
        assert {entry["state"] for entry in added["services"]["billing"]["sign"]} == {"active"}
        assert "billing" not in content["services"]

    def test_new_keys_of_a_known_one_are_published_first(self, made: Trusting, content: Content) -> None:
        again = with_part(content, part_of(keyring_of("ops:alice", made.pins)))

        states = [entry.state for entry in bundle_of(made, again).encryption[OPS_GROUP]]
        assert states == [KeyState.ACTIVE, KeyState.NEXT]
        assert again["groups"][OPS_GROUP]["members"] == ["ops:alice"]

    def test_the_same_part_twice_changes_nothing(self, made: Trusting, content: Content) -> None:
        assert with_part(content, part_of(made.keyrings["users"])) == content

    def test_whoever_goes_goes_with_every_right(self, made: Trusting, content: Content) -> None:
        gone = without_identity(content, "users")

        assert bundle_of(made, gone).services == ("orders",)
        assert "users" not in json.dumps(gone["policy"])
        assert gone["policy"]["subscribe"] == {}

    def test_an_operator_takes_its_group_key_along(self, made: Trusting, content: Content) -> None:
        both = with_part(content, part_of(keyring_of("ops:bob", made.pins)))

        gone = without_identity(both, "ops:alice", part=part_of(made.keyrings["ops:alice"]))

        assert bundle_of(made, gone).members[OPS_GROUP] == frozenset({"ops:bob"})
        assert len(gone["groups"][OPS_GROUP]["enc"]) == 1

    def test_somebody_unknown_cannot_go(self, content: Content) -> None:
        with pytest.raises(ConfigurationError, match="it knows ops:alice, orders, users"):
            without_identity(content, "nobody")


class TestRevocation:
    def test_a_key_is_revoked_and_its_state_is_that(self, made: Trusting, content: Content) -> None:
        kid = made.keyrings["users"].signing[0].kid

        found = bundle_of(made, revoke(content, kid.hex(), reason="compromise", now_ms=NOW))

        entry = found.signing_entry("users", kid)
        assert entry is not None
        assert entry.state is KeyState.COMPROMISED

    def test_worse_news_replaces_better_never_the_other_way(self, made: Trusting, content: Content) -> None:
        kid = made.keyrings["users"].signing[0].kid.hex()
        retired = revoke(content, kid, reason="retired", now_ms=NOW)
        lost = revoke(retired, kid, reason="compromise", now_ms=NOW)

        assert [entry["reason"] for entry in lost["revoked"]] == ["compromise"]
        for reason in ("retired", "compromise"):
            with pytest.raises(ConfigurationError, match="revoked already, because of compromise"):
                revoke(lost, kid, reason=reason, now_ms=NOW)

    def test_group_keys_can_be_revoked_and_unknown_ones_cannot(self, content: Content) -> None:
        kid = content["groups"][OPS_GROUP]["enc"][0]["kid"]

        assert revoke(content, kid, reason="compromise", now_ms=NOW)["revoked"][0]["kid"] == kid
        with pytest.raises(ConfigurationError, match="no key '00'"):
            revoke(content, "00", reason="compromise", now_ms=NOW)
        with pytest.raises(ConfigurationError, match="say compromise or retired"):
            revoke(content, kid, reason="lost", now_ms=NOW)


RIGHTS: list[dict[str, Any]] = [
    {"sender": "orders", "kind": "command", "name": "users.greet"},
    {"sender": "orders", "kind": "request", "name": "users.*"},
    {"sender": "ops:alice", "kind": "event", "name": "orders.order_placed"},
    {"sender": "orders", "kind": "subscribe", "name": "users.registered"},
    {"sender": "ops:alice", "kind": "replay", "name": "users.*", "to": "orders"},
    {"sender": "ops:alice", "kind": "force", "name": "users.*", "to": "orders"},
]


class TestRights:
    @pytest.mark.parametrize("right", RIGHTS, ids=lambda right: right["kind"])
    def test_what_is_allowed_can_be_denied_again(self, made: Trusting, content: Content, right: dict[str, Any]) -> None:
        allowed = allow(content, **right)

        assert bundle_of(made, allowed)
        assert allowed["policy"] != content["policy"]
        assert deny(allowed, **right)["policy"] == content["policy"]
        with pytest.raises(ConfigurationError, match="has this right already"):
            allow(allowed, **right)
        with pytest.raises(ConfigurationError, match="there is no such right"):
            deny(content, **right)

    def test_the_right_to_force_replaces_the_weaker_one(self, content: Content) -> None:
        forced = allow(content, sender="ops:alice", kind="force", name="orders.*")

        grants = [row for row in forced["policy"]["replay"] if row["to"] == "orders"]
        assert grants == [{"operator": "ops:alice", "name": "orders.*", "to": "orders", "force": True}]

    @pytest.mark.parametrize("act", [allow, deny])
    def test_an_unknown_kind_is_refused(self, content: Content, act: Callable[..., Content]) -> None:
        with pytest.raises(ConfigurationError, match="is no kind of right"):
            act(content, sender="orders", kind="fly", name="users.greet")


def test_a_renewal_changes_version_and_times_alone(content: Content) -> None:
    renewed = renew(content, version=2, now_ms=NOW + 5, life_ms=10)

    assert (renewed["version"], renewed["issued"], renewed["expires"]) == (2, NOW + 5, NOW + 15)
    assert {name: renewed[name] for name in ("services", "policy")} == {
        name: content[name] for name in ("services", "policy")
    }
