"""What changes between bundles, in sentences that a person signs by."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from messaging.security.bundle_diff import differences
from messaging.security.bundle_edit import Content, allow, deny, renew, revoke, with_part, without_identity
from messaging.security.public_part import part_of
from messaging.security.trust_folder import read_content
from tests.support.trusting import NOW, Trusting, first, keyring_of


@pytest.fixture
def made(tmp_path: Path) -> Trusting:
    return first(tmp_path)


@pytest.fixture
def content(made: Trusting) -> Content:
    raw = made.folder.current()
    assert raw is not None
    return read_content(raw)


def changed(content: Content, edit: Callable[[Any], object]) -> Content:
    new: Content = json.loads(json.dumps(content))
    edit(new)
    return new


def test_nothing_changes(content: Content) -> None:
    assert differences(content, content) == []


def test_rights_in_words(content: Content) -> None:
    more = allow(content, sender="orders", kind="command", name="users.greet")
    more = allow(more, sender="orders", kind="subscribe", name="users.registered")
    more = allow(more, sender="ops:alice", kind="force", name="orders.*")
    less = deny(content, sender="users", kind="request", name="orders.get_order")

    assert differences(content, more) == [
        "orders may now send command users.greet to users",
        "orders may now read event users.registered",
        "ops:alice may now replay orders.* in orders, by force too",
        "ops:alice may no longer replay orders.* in orders",
    ]
    assert differences(content, less) == ["users may no longer send request orders.get_order to orders"]


def test_people_and_keys_in_words(made: Trusting, content: Content) -> None:
    bob = keyring_of("ops:bob", made.pins)
    kid = bob.signing[0].kid.hex()

    joined = with_part(content, part_of(bob))

    sentences = differences(content, joined)
    assert "operator ops:bob is added" in sentences
    assert f"signing key {kid} of ops:bob is new: active" in sentences
    assert "ops:bob joins group:ops: it can read what is sealed to that group from now on" in sentences
    back = differences(joined, without_identity(joined, "ops:bob", part=part_of(bob)))
    assert "operator ops:bob is removed: nobody accepts what it signs" in back
    assert "ops:bob leaves group:ops" in back
    assert any(sentence.startswith("encryption key") and "is gone (it was active)" in sentence for sentence in back)


def test_states_and_plans_in_words(made: Trusting, content: Content) -> None:
    kid = made.keyrings["users"].signing[0].kid.hex()

    def entry(new: Any) -> Any:
        return new["services"]["users"]["sign"][0]

    retiring = changed(content, lambda new: entry(new).update(state="retiring"))
    planned = changed(content, lambda new: entry(new).update(not_before=0, not_after=1_000))

    assert differences(content, retiring) == [f"signing key {kid} of users becomes retiring (it was active)"]
    assert differences(content, planned) == [
        f"signing key {kid} of users is planned from 1970-01-01 00:00:00Z until 1970-01-01 00:00:01Z"
    ]
    assert differences(planned, content) == [f"signing key {kid} of users is planned without times"]


@pytest.mark.parametrize("field", [{"pub": "00" * 32}, {"alg": 2}])
def test_another_key_under_an_old_id_is_shouted(content: Content, field: dict[str, Any]) -> None:
    swapped = changed(content, lambda new: new["services"]["users"]["sign"][0].update(field))

    assert "IS ANOTHER KEY" in differences(content, swapped)[0]


def test_revocations_in_words(made: Trusting, content: Content) -> None:
    kid = made.keyrings["users"].signing[0].kid.hex()
    lost = revoke(content, kid, reason="compromise", now_ms=NOW)
    retired = revoke(content, kid, reason="retired", now_ms=NOW)

    assert "revoked as compromised: nothing that it signed is believed" in differences(content, lost)[0]
    assert differences(content, retired) == [f"key {kid} is revoked as retired"]
    assert "IS NO LONGER REVOKED" in differences(lost, content)[0]
    assert differences(lost, lost) == []


def test_everything_else_is_named_as_it_stands(content: Content) -> None:
    new = changed(content, lambda new: new.update(max_lifetime_s=60, surprise=True))

    assert differences(content, new) == [
        "max_lifetime_s changes from 604800 to 60",
        "surprise changes from None to True",
    ]


def test_versions_times_and_escrow(content: Content) -> None:
    new = renew(content, version=2, now_ms=NOW, life_ms=2**53)
    new["policy"]["escrow"].update(command=False, reply=True)

    assert differences(content, new) == [
        "operators can no longer read each command",
        "operators can now read each reply",
        "version 1 becomes 2",
        f"it is valid until {NOW + 2**53} ms (it was 2027-01-22 08:00:00Z)",
    ]
