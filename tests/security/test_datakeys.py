import os
import signal
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from messaging.errors import ConfigurationError
from messaging.security import datakeys
from messaging.security.datakeys import SendKey, SendKeys
from messaging.security.development import identity_entry
from messaging.security.keyblock import parse_block
from tests.support.realm import Realm


@pytest.fixture
def realm() -> Realm:
    return Realm()


@pytest.fixture
def keys(realm: Realm) -> SendKeys:
    return SendKeys("users", ambient=realm.clock.ambient)


def take(keys: SendKeys, realm: Realm, *recipients: str, size: int = 100, issued_at_ms: int | None = None) -> SendKey:
    return keys.take(
        recipients or ("orders",),
        signer=realm.signer("users"),
        bundle=realm.stores["users"].current,
        issued_at_ms=realm.clock.now_ms if issued_at_ms is None else issued_at_ms,
        size=size,
    )


def test_one_key_serves_many_messages(realm: Realm, keys: SendKeys) -> None:
    first, second = take(keys, realm), take(keys, realm)

    assert first is second
    assert (first.messages, first.volume) == (2, 200)


def test_each_set_of_recipients_has_its_own(realm: Realm, keys: SendKeys) -> None:
    one, both = take(keys, realm, "orders"), take(keys, realm, "billing", "orders")

    assert one is not both
    assert [row.rid for row in parse_block(both.block).rows] == ["billing", "orders"]


def test_each_signing_key_has_its_own(realm: Realm, keys: SendKeys) -> None:
    first = take(keys, realm)

    other = keys.take(
        ("orders",),
        signer=realm.signer("billing"),
        bundle=realm.stores["users"].current,
        issued_at_ms=realm.clock.now_ms,
        size=1,
    )

    assert other is not first


@pytest.mark.parametrize(
    "exhaust",
    [
        lambda realm, key: setattr(key, "messages", datakeys.MESSAGES_MAX),
        lambda realm, key: setattr(key, "volume", datakeys.VOLUME_MAX - 99),
        lambda realm, key: realm.clock.advance(datakeys.AGE_MAX_S),
        lambda realm, key: setattr(realm.clock, "monotonic_s", realm.clock.monotonic_s + datakeys.AGE_MAX_S),
        lambda realm, key: setattr(realm.clock, "now_ms", realm.clock.now_ms + datakeys.BEHIND_MAX_MS),
        lambda realm, key: setattr(realm.clock, "now_ms", realm.clock.now_ms - datakeys.AHEAD_MAX_MS - 1),
        lambda realm, key: realm.publish(),
    ],
    ids=[
        "messages",
        "bytes",
        "age",
        "age by a clock that stands",
        "clock set forward",
        "clock set back",
        "another bundle",
    ],
)
def test_a_key_is_renewed_at_each_limit(realm: Realm, keys: SendKeys, exhaust: Callable[[Realm, SendKey], Any]) -> None:
    first = take(keys, realm)
    exhaust(realm, first)

    second = take(keys, realm)

    assert second is not first
    assert second.block != first.block


@pytest.mark.parametrize(
    "near",
    [
        lambda realm, key: setattr(key, "messages", datakeys.MESSAGES_MAX - 1),
        lambda realm, key: setattr(key, "volume", datakeys.VOLUME_MAX - 100),
        lambda realm, key: realm.clock.advance(datakeys.AGE_MAX_S - 1),
        lambda realm, key: setattr(realm.clock, "now_ms", realm.clock.now_ms - datakeys.AHEAD_MAX_MS),
    ],
)
def test_a_key_serves_up_to_its_limit(realm: Realm, keys: SendKeys, near: Callable[[Realm, SendKey], Any]) -> None:
    first = take(keys, realm)
    near(realm, first)

    assert take(keys, realm) is first


def test_an_old_message_gets_a_key_of_its_time(realm: Realm, keys: SendKeys) -> None:
    old_ms = realm.clock.now_ms - 3_600_000

    key = take(keys, realm, issued_at_ms=old_ms)

    assert parse_block(key.block).made_at_ms == old_ms


def test_a_child_process_makes_its_own(realm: Realm, keys: SendKeys) -> None:
    parents = take(keys, realm).block
    reader, writer = os.pipe()

    child = os.fork()
    if child == 0:
        try:
            os.write(writer, take(keys, realm).block[:128])
        finally:
            os.kill(os.getpid(), signal.SIGKILL)
    os.close(writer)
    childs = os.read(reader, 128)
    os.waitpid(child, 0)
    os.close(reader)

    assert len(childs) == 128
    assert childs != parents[:128]
    assert take(keys, realm).block == parents


def test_another_process_forgets_its_parents_keys(
    realm: Realm, keys: SendKeys, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, process = take(keys, realm), os.getpid()
    monkeypatch.setattr(os, "getpid", lambda: process + 1)

    second, third = take(keys, realm), take(keys, realm)

    assert second is not first
    assert third is second


def test_every_active_key_of_a_recipient_gets_a_row(realm: Realm, keys: SendKeys) -> None:
    more = realm.new_keyring("orders")
    realm.publish(lambda payload: payload["services"]["orders"]["enc"].extend(identity_entry(more)["enc"]))

    rows = parse_block(take(keys, realm).block).rows

    assert {row.rkid for row in rows} == {*realm.keyrings["orders"].decryption, *more.decryption}


def test_a_recipient_without_a_key_is_named(realm: Realm, keys: SendKeys) -> None:
    realm.publish(lambda payload: payload["services"]["orders"]["enc"][0].update(state="retired"))

    with pytest.raises(ConfigurationError, match=r"no active suite 1 encryption key of 'orders'.*sign a newer bundle"):
        take(keys, realm)


def test_there_are_at_most_18_rows(realm: Realm, keys: SendKeys) -> None:
    def add(payload: dict[str, Any]) -> None:
        for _ in range(18):
            payload["services"]["orders"]["enc"].extend(identity_entry(realm.new_keyring("orders"))["enc"])

    realm.publish(add)

    with pytest.raises(ConfigurationError, match="19 keys to seal to"):
        take(keys, realm)


def test_the_number_of_keys_in_use_is_bounded(realm: Realm, keys: SendKeys, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datakeys, "SETS_MAX", 2)
    first = take(keys, realm, "orders")
    take(keys, realm, "billing")

    take(keys, realm, "users")

    assert len(keys._keys) == 2
    assert take(keys, realm, "orders") is not first


def test_a_key_in_use_does_not_show_itself(realm: Realm, keys: SendKeys) -> None:
    key = take(keys, realm)

    assert "DataKey" not in repr(replace(key))
