"""The steps of a rotation, from bundle to bundle."""

from pathlib import Path

import pytest

from messaging.errors import ConfigurationError
from messaging.security.bundle import OPS_GROUP, KeyState
from messaging.security.bundle_edit import Content, revoke, with_part
from messaging.security.keyring import Keyring, check_keyring
from messaging.security.public_part import part_of
from messaging.security.rotation import OVERLAP_MS, KeyFact, Plan, Step, Timing, plan_rotation
from messaging.security.rotation_steps import facts_of, new_keys, plan_ahead, take_step, with_new_keys, without_keys
from tests.support.trusting import NOW, Trusting, first, keyring_of

LIFE = 7 * 24 * 3_600_000
TIMING = Timing(max_lifetime_ms=LIFE)
ALICE = "ops:alice"


@pytest.fixture
def made(tmp_path: Path) -> Trusting:
    return first(tmp_path)


def owned(keyring: Keyring) -> dict[str, frozenset[str]]:
    return {group: frozenset(kid.hex() for kid in keys) for group, keys in keyring.groups.items()}


def facts(made: Trusting, identity: str) -> list[KeyFact]:
    return facts_of(made.folder.history(), identity, owned=owned(made.keyrings[identity]))


def rotate(made: Trusting, identity: str, *, now: int) -> Plan:
    """Take the next step and put it in force, at its earliest time."""
    keyring = made.keyrings[identity]
    plan = plan_rotation(facts(made, identity), TIMING, now_ms=now)
    now = max(now, plan.earliest_ms)
    content = made.folder.content()
    if plan.step is Step.PUBLISH:
        made.keyrings[identity] = with_new_keys(keyring)
        content = with_part(content, part_of(made.keyrings[identity]))
    else:
        content = take_step(content, identity, plan, owned=owned(keyring))
    made.put(content, now_ms=now)
    return plan


def states(made: Trusting, identity: str) -> list[tuple[str, str]]:
    return [(fact.role, fact.state.value) for fact in facts(made, identity)]


class TestARotation:
    @pytest.mark.parametrize("identity", ["users", ALICE])
    def test_goes_through_all_states_and_ends_with_new_keys(self, made: Trusting, identity: str) -> None:
        before = {fact.kid for fact in facts(made, identity)}
        roles = ["sign", "enc", OPS_GROUP] if identity == ALICE else ["sign", "enc"]
        seen: list[tuple[Step, set[str]]] = []
        now = NOW

        for _ in range(4):
            plan = rotate(made, identity, now=now)
            now = max(now, plan.earliest_ms) + 1
            seen.append((plan.step, {state for _, state in states(made, identity)}))

        assert seen == [
            (Step.PUBLISH, {"active", "next"}),
            (Step.ACTIVATE, {"retiring", "active"}),
            (Step.RETIRE, {"retired", "active"}),
            (Step.DESTROY, {"active"}),
        ]
        assert [role for role, _ in states(made, identity)] == roles
        assert not before & {fact.kid for fact in facts(made, identity)}

    def test_times_are_those_of_the_first_bundle_with_the_state(self, made: Trusting) -> None:
        rotate(made, "users", now=NOW + 10)
        made.put(made.folder.content(), now_ms=NOW + 500)
        made.put(made.folder.content(), now_ms=NOW + 900)

        assert {(fact.state, fact.since_ms) for fact in facts(made, "users")} == {
            (KeyState.ACTIVE, NOW),
            (KeyState.NEXT, NOW + 10),
        }

    def test_others_keys_stay_as_they_are(self, made: Trusting) -> None:
        for _ in range(2):
            rotate(made, "users", now=NOW)

        assert states(made, "orders") == [("sign", "active"), ("enc", "active")]
        assert states(made, ALICE) == [("sign", "active"), ("enc", "active"), (OPS_GROUP, "active")]

    def test_an_operator_s_rotation_leaves_the_group_keys_of_others_alone(self, made: Trusting) -> None:
        bob = keyring_of("ops:bob", made.pins)
        made.put(with_part(made.folder.content(), part_of(bob)))

        for _ in range(2):
            rotate(made, ALICE, now=NOW)

        group = made.folder.content()["groups"][OPS_GROUP]["enc"]
        kid = next(iter(bob.groups[OPS_GROUP])).hex()
        assert {entry["kid"]: entry["state"] for entry in group}[kid] == "active"
        assert sorted(entry["state"] for entry in group) == ["active", "active", "retiring"]

    def test_the_keyring_with_new_keys_serves_every_bundle_of_the_rotation(self, made: Trusting) -> None:
        bundles = []
        for _ in range(4):
            rotate(made, "users", now=NOW)
            raw = made.folder.current()
            assert raw is not None
            bundles.append(made.folder.verified(raw))

        for bundle in bundles:
            check_keyring(made.keyrings["users"], bundle)

    def test_a_compromised_key_is_replaced_without_waiting(self, made: Trusting) -> None:
        kid = made.keyrings["users"].signing[0].kid.hex()
        made.put(revoke(made.folder.content(), kid, reason="compromise", now_ms=NOW))

        first_step = rotate(made, "users", now=NOW)
        second_step = rotate(made, "users", now=NOW)

        assert [(plan.step, plan.is_urgent) for plan in (first_step, second_step)] == [
            (Step.PUBLISH, True),
            (Step.ACTIVATE, True),
        ]
        assert ("sign", "active") in states(made, "users")


class TestAhead:
    def planned(self, made: Trusting, at: int) -> Content:
        made.keyrings["users"] = with_new_keys(made.keyrings["users"])
        return plan_ahead(made.folder.content(), part_of(made.keyrings["users"]), at_ms=at)

    def test_one_signature_covers_the_change(self, made: Trusting) -> None:
        old, at = made.keyrings["users"].signing[0].kid, NOW + 3_600_000
        made.put(self.planned(made, at))
        raw = made.folder.current()
        assert raw is not None
        bundle = made.folder.verified(raw)
        new = made.keyrings["users"].signing[1].kid

        assert bundle.active_signing_ids("users", now_ms=at - 1) == {old}
        assert bundle.active_signing_ids("users", now_ms=at) == {old, new}
        assert bundle.active_signing_ids("users", now_ms=at + OVERLAP_MS + 1) == {new}

    def test_the_old_keys_retire_after_their_planned_end(self, made: Trusting) -> None:
        at = NOW + 3_600_000
        made.put(self.planned(made, at))

        plan = plan_rotation(facts(made, "users"), TIMING, now_ms=NOW)

        assert (plan.step, len(plan.kids)) == (Step.RETIRE, 2)
        assert plan.earliest_ms == at + OVERLAP_MS + LIFE + 60_000

    def test_what_has_an_end_already_keeps_it(self, made: Trusting) -> None:
        made.put(self.planned(made, NOW + 1_000))
        first_end = NOW + 1_000 + OVERLAP_MS

        entries = self.planned(made, NOW + 5_000)["services"]["users"]["sign"]

        assert [entry["not_after"] for entry in entries] == [first_end, NOW + 5_000 + OVERLAP_MS, None]


class TestKeyrings:
    def test_new_keys_are_those_that_the_bundle_does_not_know(self, made: Trusting) -> None:
        keyring = made.keyrings[ALICE]
        content = made.folder.content()

        more = with_new_keys(keyring)

        assert new_keys(keyring, content) == frozenset()
        assert len(new_keys(more, content)) == 3
        assert more.signing[0] is keyring.signing[0]

    def test_private_keys_go_but_never_the_last_one(self, made: Trusting) -> None:
        keyring = with_new_keys(made.keyrings[ALICE])
        old = {keyring.signing[0].kid.hex(), next(iter(keyring.decryption)).hex()}

        less = without_keys(keyring, frozenset(old))
        none = without_keys(less, frozenset({less.signing[0].kid.hex(), next(iter(less.decryption)).hex()}))

        assert (len(less.signing), len(less.decryption), len(less.groups[OPS_GROUP])) == (1, 1, 2)
        assert (none.signing, none.decryption) == (less.signing, less.decryption)


def test_without_a_bundle_or_the_identity_there_is_nothing_to_plan(made: Trusting) -> None:
    with pytest.raises(ConfigurationError, match="no trust bundle is in force yet"):
        facts_of([], "users", owned={})
    with pytest.raises(ConfigurationError, match="'nobody' is not in trust bundle version 1"):
        facts_of(made.folder.history(), "nobody", owned={})
