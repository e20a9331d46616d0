"""The steps of a migration between suites, from bundle to bundle."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from messaging.errors import ConfigurationError
from messaging.security.bundle import OPS_GROUP, KeyState
from messaging.security.bundle_diff import differences
from messaging.security.bundle_edit import Content, with_part
from messaging.security.keys import DecryptionKey
from messaging.security.public_part import part_of
from messaging.security.rotation import SETTLE_MS, SKEW_MS, KeyFact, Plan, Step, Timing, plan_rotation
from messaging.security.rotation_steps import (
    facts_of,
    plan_ahead,
    suites_in_use,
    take_step,
    with_new_keys,
    without_keys,
)
from messaging.security.suite_steps import earliest_ms, with_suite, with_suites
from tests.support.trusting import NOW, Trusting, first, keyring_of

LIFE = 7 * 24 * 3_600_000
HOUR = 3_600_000
TIMING = Timing(max_lifetime_ms=LIFE)
EVERYBODY = ("users", "orders", "ops:alice")


@pytest.fixture
def made(tmp_path: Path) -> Trusting:
    return first(tmp_path)


def owned(made: Trusting, identity: str) -> dict[str, frozenset[str]]:
    return {group: frozenset(kid.hex() for kid in keys) for group, keys in made.keyrings[identity].groups.items()}


def facts(made: Trusting, identity: str) -> list[KeyFact]:
    return facts_of(made.folder.history(), identity, owned=owned(made, identity))


def states(made: Trusting, identity: str) -> list[tuple[str, str]]:
    return [(fact.role, fact.state.value) for fact in facts(made, identity)]


def plan(made: Trusting, identity: str, *, now: int) -> Plan:
    return plan_rotation(facts(made, identity), TIMING, now_ms=now)


def step(made: Trusting, identity: str, *, now: int) -> Step:
    """Take the next step of a rotation at a time and put it in force."""
    found = plan(made, identity, now=now)
    content = made.folder.content()
    if found.step is Step.PUBLISH:
        made.keyrings[identity] = with_new_keys(made.keyrings[identity], suites_in_use(content, identity))
        content = with_part(content, part_of(made.keyrings[identity]))
    else:
        content = take_step(content, identity, found, owned=owned(made, identity))
    if found.step is Step.DESTROY:
        made.keyrings[identity] = without_keys(made.keyrings[identity], frozenset(found.kids))
    made.put(content, now_ms=now)
    return found.step


def prepared(made: Trusting) -> int:
    """Give everybody an active key of suite 2; returns the time."""
    content = made.folder.content()
    for identity in EVERYBODY:
        made.keyrings[identity] = with_suite(made.keyrings[identity], 2)
        content = with_part(content, part_of(made.keyrings[identity]))
    made.put(content, now_ms=NOW)
    for identity in EVERYBODY:
        assert step(made, identity, now=NOW + HOUR) is Step.ACTIVATE
    return NOW + HOUR


def change(made: Trusting, suites: tuple[int, ...], *, now: int) -> None:
    assert earliest_ms(made.folder.history(), suites) <= now
    made.put(with_suites(made.folder.content(), suites, now_ms=now), now_ms=now)


def migrated(made: Trusting) -> int:
    """Bring the bundle to suite 2 alone; returns the time."""
    now = prepared(made)
    for suites in ((1, 2), (2, 1), (2,)):
        now = max(now + HOUR, earliest_ms(made.folder.history(), suites))
        change(made, suites, now=now)
    return now


class TestAddingKeys:
    def test_gives_each_role_one(self, made: Trusting) -> None:
        before = made.keyrings["ops:alice"]

        after = with_suite(before, 2)

        assert [key.suite for key in after.decryption.values()] == [1, 2]
        assert [key.suite for key in after.groups[OPS_GROUP].values()] == [1, 2]
        assert after.signing == before.signing
        assert after.decryption.items() > before.decryption.items()

    def test_gives_a_role_none_that_has_one(self, made: Trusting) -> None:
        own = DecryptionKey.generate("test", 2)
        keyring = made.keyrings["ops:alice"]
        half = replace(keyring, decryption={**keyring.decryption, own.kid: own})

        after = with_suite(half, 2)

        assert after.decryption == half.decryption
        assert len(after.groups[OPS_GROUP]) == 2

    def test_says_when_there_is_nothing_to_do(self, made: Trusting) -> None:
        with pytest.raises(ConfigurationError, match="has keys of suite 2 already"):
            with_suite(with_suite(made.keyrings["users"], 2), 2)

    @pytest.mark.parametrize("identity", ["users", "ops:alice"])
    def test_replaces_no_key_of_the_other_suite(self, made: Trusting, identity: str) -> None:
        prepared(made)

        found = states(made, identity)

        roles = ["sign", "enc"] + ([OPS_GROUP] if identity == "ops:alice" else [])
        assert {role for role, _ in found} == {*roles, *(f"{role} of suite 2" for role in roles[1:])}
        assert {state for _, state in found} == {"active"}

    def test_is_no_emergency_while_nobody_seals_in_the_suite(self, made: Trusting) -> None:
        made.keyrings["users"] = with_suite(made.keyrings["users"], 2)
        made.put(with_part(made.folder.content(), part_of(made.keyrings["users"])), now_ms=NOW)

        found = plan(made, "users", now=NOW)

        assert (found.step, found.is_urgent, found.earliest_ms) == (Step.ACTIVATE, False, NOW + SETTLE_MS)

    def test_is_an_emergency_when_messages_are_sealed_in_the_suite_and_none_is_active(self, made: Trusting) -> None:
        now = prepared(made)
        for suites in ((1, 2), (2, 1)):
            now += HOUR
            change(made, suites, now=now)
        content = made.folder.content()
        for entry in content["services"]["users"]["enc"]:
            entry["state"] = "retiring" if entry["alg"] == 3 else entry["state"]
        made.put(content, now_ms=now)

        assert plan(made, "users", now=now).is_urgent


class TestTheOrder:
    def test_of_the_whole_migration(self, made: Trusting) -> None:
        migrated(made)

        assert [content["suites"] for content in made.folder.history()][-3:] == [[1, 2], [2, 1], [2]]

    @pytest.mark.parametrize("suites", [(2, 1), (2,)])
    def test_a_suite_is_accepted_before_it_is_used(self, made: Trusting, suites: tuple[int, ...]) -> None:
        prepared(made)

        with pytest.raises(ConfigurationError, match=r"cannot be used at once.*trust suites 1,2"):
            earliest_ms(made.folder.history(), suites)

    def test_a_suite_is_used_once_everybody_has_the_bundle_that_accepts_it(self, made: Trusting) -> None:
        now = prepared(made)

        change(made, (1, 2), now=now)

        assert earliest_ms(made.folder.history(), (2, 1)) == now + SETTLE_MS

    def test_a_suite_in_use_is_not_dropped(self, made: Trusting) -> None:
        change(made, (1, 2), now=prepared(made))

        with pytest.raises(ConfigurationError, match=r"cannot be dropped at once.*trust suites 2,1"):
            earliest_ms(made.folder.history(), (2,))

    def test_a_suite_is_dropped_when_nothing_can_be_under_way_in_it(self, made: Trusting) -> None:
        now = prepared(made)
        change(made, (1, 2), now=now)
        change(made, (2, 1), now=now + HOUR)

        found = earliest_ms(made.folder.history(), (2,))

        assert found == now + HOUR + SETTLE_MS + LIFE + SKEW_MS

    def test_the_way_back_waits_for_nothing_where_nothing_was_sent(self, made: Trusting) -> None:
        change(made, (1, 2), now=prepared(made))

        assert earliest_ms(made.folder.history(), (1,)) == 0

    def test_a_suite_that_was_listed_from_the_start_is_used_when_the_first_bundle_has_settled(
        self, made: Trusting
    ) -> None:
        history = [{**content, "suites": [1, 2]} for content in made.folder.history()]

        assert earliest_ms(history, (2, 1)) == NOW + SETTLE_MS

    def test_before_the_first_bundle_everything_is_free(self) -> None:
        assert earliest_ms([], (2,)) == 0


class TestAList:
    @pytest.mark.parametrize("suites", [(), (1, 1), (3,), (2, 1, 2)])
    def test_names_known_suites_once(self, made: Trusting, suites: tuple[int, ...]) -> None:
        prepared(made)

        with pytest.raises(ConfigurationError, match="no list of suites"):
            with_suites(made.folder.content(), suites, now_ms=NOW)

    def test_begins_with_a_suite_that_everybody_has_an_active_key_of(self, made: Trusting) -> None:
        with pytest.raises(ConfigurationError, match="no active key of suite 2: orders, users, ops:alice, group:ops;"):
            with_suites(made.folder.content(), (2, 1), now_ms=NOW)

    @pytest.mark.parametrize(
        "spoilt",
        [{"state": "next"}, {"not_before": NOW + 2 * HOUR}, {"not_after": NOW}, {}],
        ids=["next", "later", "over", "revoked"],
    )
    def test_counts_only_keys_that_are_usable_now(self, made: Trusting, spoilt: dict[str, Any]) -> None:
        now = prepared(made)
        content = made.folder.content()
        entry = content["services"]["users"]["enc"][1]
        entry.update(spoilt)
        if not spoilt:
            content["revoked"].append({"kid": entry["kid"], "at": NOW, "reason": "compromise"})

        with pytest.raises(ConfigurationError, match="no active key of suite 2: users;"):
            with_suites(content, (2, 1), now_ms=now)

    def test_takes_a_key_within_its_times(self, made: Trusting) -> None:
        now = prepared(made)
        content = made.folder.content()
        content["services"]["users"]["enc"][1].update(not_before=now - 1, not_after=now + 1)

        assert with_suites(content, (2, 1), now_ms=now)["suites"] == [2, 1]

    def test_leaves_the_keys_of_a_suite_that_it_keeps(self, made: Trusting) -> None:
        now = prepared(made)

        changed = with_suites(made.folder.content(), (2, 1), now_ms=now)

        assert {entry["state"] for entry in changed["services"]["users"]["enc"]} == {"active"}

    def test_lets_the_keys_of_a_dropped_suite_end_like_all_others(self, made: Trusting) -> None:
        now = migrated(made)
        old = next(fact for fact in facts(made, "users") if fact.role == "enc")

        assert old.state is KeyState.RETIRING
        assert step(made, "users", now=now + LIFE + SKEW_MS) is Step.RETIRE
        now += 200 * 24 * HOUR
        assert step(made, "users", now=now) is Step.DESTROY
        assert [key.suite for key in made.keyrings["users"].decryption.values()] == [2]
        assert states(made, "users") == [("sign", "active"), ("enc of suite 2", "active")]

    def test_after_which_a_rotation_makes_keys_of_the_other_suite_alone(self, made: Trusting) -> None:
        now = migrated(made)
        for _ in range(2):
            now += 200 * 24 * HOUR
            step(made, "users", now=now)

        assert step(made, "users", now=now) is Step.PUBLISH
        assert states(made, "users") == [
            ("sign", "active"),
            ("sign", "next"),
            ("enc of suite 2", "active"),
            ("enc of suite 2", "next"),
        ]


class TestRotation:
    def test_in_between_renews_the_keys_of_both_suites(self, made: Trusting) -> None:
        now = prepared(made) + HOUR

        assert step(made, "users", now=now) is Step.PUBLISH
        assert step(made, "users", now=now + HOUR) is Step.ACTIVATE

        assert sorted(states(made, "users")) == sorted(
            (role, state) for role in ("sign", "enc", "enc of suite 2") for state in ("active", "retiring")
        )

    def test_without_a_bundle_renews_what_the_keyring_has(self, made: Trusting) -> None:
        both = with_suite(made.keyrings["users"], 2)

        assert [key.suite for key in with_new_keys(both).decryption.values()] == [1, 2, 1, 2]

    def test_planned_for_one_suite_ends_no_key_of_the_other(self, made: Trusting) -> None:
        keyring = with_suite(made.keyrings["users"], 2)

        changed = plan_ahead(made.folder.content(), part_of(keyring), at_ms=NOW + HOUR)

        old, new = changed["services"]["users"]["enc"]
        assert (old["not_after"], new["not_before"]) == (None, NOW + HOUR)


class TestNewIdentities:
    def part(self, made: Trusting, *, suite: int | None) -> Any:
        keyring = keyring_of("ops:bob", made.pins)
        return part_of(keyring if suite is None else with_suite(keyring, suite))

    def test_need_a_key_of_the_suite_in_use(self, made: Trusting) -> None:
        migrated(made)

        with pytest.raises(ConfigurationError, match="no key of suite 2 for 'ops:bob'"):
            with_part(made.folder.content(), self.part(made, suite=None))

        assert "ops:bob" in with_part(made.folder.content(), self.part(made, suite=2))["operators"]

    def test_need_one_for_their_group_too(self, made: Trusting) -> None:
        migrated(made)
        whole = self.part(made, suite=2)
        half = replace(whole, groups={OPS_GROUP: whole.groups[OPS_GROUP][:1]})

        with pytest.raises(ConfigurationError, match="no key of suite 2 for 'group:ops'"):
            with_part(made.folder.content(), half)


class TestWords:
    def said(self, old: Content, suites: list[int]) -> list[str]:
        return [text for text in differences(old, {**old, "suites": suites}) if "suite" in text]

    @pytest.mark.parametrize(
        ("old", "new", "words"),
        [
            ([1], [1, 2], ["suite 2 (post-quantum) is accepted"]),
            ([1, 2], [2, 1], ["messages are sealed in suite 2 (post-quantum); they were in suite 1"]),
            ([2, 1], [2], ["suite 1 is no longer accepted: whatever is still under way in it is refused"]),
            ([2], [2], []),
            (
                [2],
                [1],
                [
                    "messages are sealed in suite 1; they were in suite 2 (post-quantum)",
                    "suite 1 is accepted",
                    "suite 2 (post-quantum) is no longer accepted: whatever is still under way in it is refused",
                ],
            ),
        ],
    )
    def test_tell_what_changes(self, made: Trusting, old: list[int], new: list[int], words: list[str]) -> None:
        assert self.said({**made.folder.content(), "suites": old}, new) == words

    def test_tell_a_post_quantum_key(self, made: Trusting) -> None:
        content = made.folder.content()
        keyring = with_suite(made.keyrings["users"], 2)

        found = differences(content, with_part(content, part_of(keyring)))

        kid = list(keyring.decryption)[1].hex()
        assert f"encryption key {kid} of users is new: next, post-quantum" in found
