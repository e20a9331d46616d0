"""Time and keys: late and early messages, senders and keys that are unknown, retired, compromised, or being rotated."""

from collections.abc import Callable
from typing import Any, Final
from uuid import uuid4

import pytest

from messaging.core.topology import Names, routing_key
from messaging.security.content import split_fault
from messaging.security.development import key_entry
from messaging.security.keyring import Keyring
from messaging.security.keys import DecryptionKey, SigningKey
from messaging.security.seal import Sealer
from messaging.security.suite import ED25519, X25519
from messaging.security.trust import TrustStore
from tests.support.arena import Arena, CancelOrder, GetOrder, OrderPlaced, PlaceOrder
from tests.support.realm import DAY_MS, EVERY_KIND, NAMES, START_MS, Realm, resign
from tests.support.waiting import eventually

MINUTE_MS: Final = 60_000
AHEAD: Final = 1_000_000
NO_CHANGE: Final[dict[int, object]] = {}

Edit = Callable[[dict[str, Any]], object]


def set_state(name: str, state: str, *, part: str = "sign", at: int = 0, **times: int) -> Edit:
    """Return the edit that changes one key's entry."""

    def edit(payload: dict[str, Any]) -> None:
        section = "operators" if ":" in name else "services"
        payload[section][name][part][at] |= {"state": state, **times}

    return edit


def error_of(arena: Arena, letter: bytes) -> str:
    """Return the error that a dead letter names, as the failing service reads it."""
    opener = arena.realm.opener("orders")
    _, fault = split_fault(opener.decrypt(opener.verify_archived(letter)))
    return str(fault["error"])


@pytest.mark.attack(21)
async def test_what_expired_more_than_a_minute_ago_is_buried_as_expired(arena: Arena) -> None:
    body = arena.sealed(expires_at_ms=START_MS + 1_000)
    arena.clock.advance(62)

    outcome = await arena.struck(body)

    outcome.assert_buried()
    assert error_of(arena, outcome.dead[0]) == "expired"


@pytest.mark.attack(21)
async def test_what_expired_within_the_last_minute_still_runs(arena: Arena) -> None:
    body = arena.sealed(expires_at_ms=START_MS + 1_000)
    arena.clock.advance(60)

    outcome = await arena.struck(body)

    outcome.assert_ran()


@pytest.mark.attack(21)
async def test_an_expired_request_is_dropped_unanswered(arena: Arena) -> None:
    body = arena.sealed(GetOrder(), expires_at_ms=START_MS + 1_000)
    arena.clock.advance(62)

    outcome = await arena.struck(body, part="requests")

    outcome.assert_skipped("stale")


@pytest.mark.attack(21)
async def test_an_expired_message_that_ran_is_not_buried_when_it_comes_again(arena: Arena) -> None:
    body = arena.sealed(expires_at_ms=START_MS + 1_000)
    (await arena.struck(body)).assert_ran()
    arena.clock.advance(62)

    outcome = await arena.struck(body)

    outcome.assert_skipped("duplicate")


@pytest.mark.attack(21)
async def test_what_is_issued_two_minutes_ahead_waits_until_its_time(arena: Arena) -> None:
    body = arena.sealed(issued_at_ms=START_MS + 2 * MINUTE_MS, expires_at_ms=START_MS + DAY_MS)

    first = await arena.struck(body)
    too_early = await arena.elapsed(50)
    then = await arena.elapsed(20)

    first.assert_deferred()
    assert too_early.ran == ()
    assert [run.context.attempt for run in then.ran] == [1]
    assert arena.waiting("orders") == 0


@pytest.mark.attack(21)
async def test_what_is_issued_an_hour_ahead_is_refused_after_ten_minutes(arena: Arena) -> None:
    body = arena.sealed(issued_at_ms=START_MS + 60 * MINUTE_MS, expires_at_ms=START_MS + DAY_MS)

    (await arena.struck(body)).assert_deferred()
    await arena.elapsed(605)

    assert arena.ran == []
    assert arena.bodies("orders", "refused") == [body]
    assert arena.counts("orders")["refused.stale"] == 1
    assert arena.waiting("orders") == 0


@pytest.mark.attack(23)
async def test_an_unknown_sender_or_key_is_a_forgery(arena: Arena) -> None:
    stranger = SigningKey.generate("test")
    body = arena.sealed()

    outcome = await arena.struck(
        resign(body, stranger, fields={3: "intruder", 4: stranger.kid}),
        resign(body, stranger, fields={3: "users", 4: stranger.kid}),
        resign(body, stranger, fields={3: "ops:mallory", 4: stranger.kid}),
    )

    outcome.assert_forged("unknown_key", times=3)


@pytest.mark.attack(23)
async def test_a_name_over_another_services_key_is_a_forgery(arena: Arena) -> None:
    signer = arena.realm.signer("billing")

    outcome = await arena.struck(resign(arena.sealed(), signer, fields={3: "users", 4: signer.kid}))

    outcome.assert_forged("unknown_key")


@pytest.mark.attack(23)
async def test_an_encryption_key_signs_nothing(arena: Arena) -> None:
    (kid,) = arena.realm.keyrings["users"].decryption

    outcome = await arena.struck(resign(arena.sealed(), arena.realm.signer("users"), fields={4: kid}))

    outcome.assert_forged("unknown_key")


@pytest.mark.attack(23)
async def test_a_claim_of_a_newer_bundle_buys_a_minute_and_then_is_a_forgery(arena: Arena) -> None:
    stranger = SigningKey.generate("test")
    body = resign(arena.sealed(), stranger, fields={3: "intruder", 4: stranger.kid, 16: {"bv": AHEAD}})

    (await arena.struck(body)).assert_deferred()
    await arena.elapsed(65)

    assert arena.ran == []
    assert arena.counts("orders")["skipped.unknown_key"] == 1
    assert arena.bodies("orders", "quarantine") == [body]
    assert (arena.waiting("orders"), arena.bodies("orders", "refused")) == (0, [])


@pytest.mark.attack(24)
@pytest.mark.parametrize("issued_ms", [START_MS, START_MS - 30 * MINUTE_MS])
async def test_a_retired_key_is_refused_whatever_the_time_that_it_claims(arena: Arena, issued_ms: int) -> None:
    body = arena.sealed(issued_at_ms=issued_ms)
    arena.realm.publish(set_state("users", "retired"))

    outcome = await arena.struck(body)

    outcome.assert_refused("unknown_key", body)


@pytest.mark.attack(24)
async def test_a_key_outside_its_times_is_refused(arena: Arena) -> None:
    body = arena.sealed()
    arena.realm.publish(set_state("users", "active", not_before=START_MS + 1))
    early = await arena.struck(body)
    arena.realm.publish(set_state("users", "active", not_before=START_MS - 2, not_after=START_MS - 1))
    late = await arena.struck(body)

    early.assert_refused("unknown_key", body)
    late.assert_refused("unknown_key", body)


@pytest.mark.attack(24)
async def test_a_key_revoked_as_retired_is_refused_although_its_entry_says_active(arena: Arena) -> None:
    body = arena.sealed()
    arena.realm.publish(arena.realm.revoke("users", "retired"))

    outcome = await arena.struck(body)

    outcome.assert_refused("unknown_key", body)


@pytest.mark.attack(25)
@pytest.mark.parametrize("issued_ms", [START_MS, START_MS - 30 * MINUTE_MS])
async def test_a_compromised_key_proves_nothing_whatever_the_time(arena: Arena, issued_ms: int) -> None:
    body = arena.sealed(issued_at_ms=issued_ms)
    arena.realm.publish(arena.realm.revoke("users", "compromise"))

    outcome = await arena.struck(body)

    outcome.assert_forged("unknown_key")


@pytest.mark.attack(26)
@pytest.mark.parametrize("reason", ["compromise", "retired"])
async def test_a_revocation_acts_at_once_on_what_is_cached(arena: Arena, reason: str) -> None:
    sealer = arena.realm.sealer("users")
    batch = sealer.sign(
        [
            sealer.prepare(arena.envelope(PlaceOrder()), routing_key=routing_key("orders.place_order", 1))
            for _ in range(8)
        ]
    )
    (await arena.struck(*batch[:4])).assert_ran(times=4)

    arena.realm.publish(arena.realm.revoke("users", reason))
    outcome = await arena.struck(*batch[4:])

    if reason == "compromise":
        outcome.assert_forged("unknown_key", times=4)
    else:
        outcome.assert_refused("unknown_key", *batch[4:])


@pytest.mark.attack(26)
async def test_a_revocation_stops_what_waits_on_the_ladder(arena: Arena) -> None:
    async def fails(_message: object, _context: object) -> None:
        raise ConnectionError("not yet")

    arena.behave["orders"] = fails
    body = arena.sealed()
    assert dict((await arena.struck(body)).counts) == {"retried": 1}
    ran = len(arena.ran)

    arena.realm.publish(arena.realm.revoke("users", "compromise"))
    outcome = await arena.elapsed(5)

    assert len(arena.ran) == ran
    assert dict(outcome.counts) == {"skipped.unknown_key": 1}


@pytest.mark.attack(26)
async def test_a_rule_that_is_taken_away_acts_at_once(arena: Arena) -> None:
    first, second = arena.sealed(), arena.sealed()
    (await arena.struck(first)).assert_ran()

    def denied(payload: dict[str, Any]) -> None:
        payload["policy"]["send"] = []

    arena.realm.publish(denied)
    outcome = await arena.struck(second)

    outcome.assert_refused("policy", second)


class Rotation:
    """Signing and encryption keys of one service, moved state by state; new keys come to the front of the keyring."""

    def __init__(self, realm: Realm, name: str) -> None:
        self.realm = realm
        self.name = name
        self.old = realm.keyrings[name]
        signing, decryption = SigningKey.generate("test"), DecryptionKey.generate("test")
        self.new = Keyring(
            service=name,
            realm="test",
            signing=(signing, *self.old.signing),
            decryption={decryption.kid: decryption, **self.old.decryption},
            roots=self.old.roots,
        )
        self._entries = {
            "sign": key_entry(signing.kid, ED25519, signing.public.raw),
            "enc": key_entry(decryption.kid, X25519, decryption.public.raw),
        }

    def announce(self, payload: dict[str, Any]) -> None:
        """Publish the new keys as next."""
        for part, entry in self._entries.items():
            payload["services"][self.name][part].append(entry | {"state": "next"})

    def switch(self, payload: dict[str, Any]) -> None:
        """Let the new keys be active and the old ones retiring."""
        for part in self._entries:
            old, new = payload["services"][self.name][part]
            old["state"], new["state"] = "retiring", "active"

    def finish(self, payload: dict[str, Any]) -> None:
        """Retire the old signing key; the old encryption key goes on opening what is in flight."""
        payload["services"][self.name]["sign"][0]["state"] = "retired"


def sealed_with(keyring: Keyring, arena: Arena, names: Names = NAMES) -> bytes:
    """Return a command sealed by a replica that has this keyring."""
    sealer = Sealer(keyring, arena.realm.stores[keyring.service], names, ambient=arena.clock.ambient)
    return sealer.seal(arena.envelope(PlaceOrder()), routing_key=routing_key("orders.place_order", 1))


@pytest.mark.attack(67)
async def test_a_rotation_of_both_sides_loses_and_refuses_nothing() -> None:
    async with Arena(names=()) as arena:
        realm = arena.realm
        senders, receivers = Rotation(realm, "users"), Rotation(realm, "orders")
        await arena.start("orders")
        in_flight: list[bytes] = []

        async def traffic(*keyrings: Keyring) -> None:
            bodies = [sealed_with(keyring, arena) for keyring in keyrings]
            in_flight.append(sealed_with(keyrings[0], arena))
            assert len((await arena.struck(*bodies)).ran) == len(bodies)

        await traffic(senders.old)
        # Every key file first: from here on old and new replicas of both run side by side.
        realm.keyrings["orders"] = receivers.new
        await arena.start("orders", as_name="orders'")
        realm.publish(senders.announce)
        realm.publish(receivers.announce)
        await traffic(senders.old, senders.new)
        await arena.services["orders"].stop()
        realm.publish(receivers.switch)
        arena.services["orders"] = arena.services.pop("orders'")
        await traffic(senders.old, senders.new)
        newer = realm.publish(senders.switch, to="orders")
        await traffic(senders.old, senders.new)
        realm.stores["users"].replace(newer)
        await traffic(senders.new)
        assert len((await arena.struck(*in_flight)).ran) == len(in_flight)
        arena.clock.advance(7 * 24 * 3600 + 61)
        realm.publish(senders.finish)
        realm.publish(receivers.finish)
        await traffic(senders.new)

        assert arena.counts("orders").keys() == {"handled"}
        assert [arena.bodies("orders", part) for part in ("dead", "refused", "quarantine")] == [[], [], []]


@pytest.mark.attack(81)
async def test_a_sender_that_the_receiver_does_not_know_yet_runs_after_the_reload(arena: Arena) -> None:
    realm = arena.realm
    shop = realm.new_keyring("shop")

    def with_shop(payload: dict[str, Any]) -> None:
        payload["services"]["shop"] = {
            "sign": [key_entry(key.kid, ED25519, key.public.raw) for key in shop.signing],
            "enc": [key_entry(key.kid, X25519, key.public.raw) for key in shop.decryption.values()],
        }
        payload["policy"]["send"].append({"from": "shop", "kind": "command", "name": "orders.*", "to": "orders"})

    newer = realm.publish(with_shop, to="users")
    body = newcomer(arena, shop, newer)

    first = await arena.struck(body)
    waiting = await arena.elapsed(30)
    realm.stores["orders"].replace(newer)
    then = await arena.elapsed(2)

    first.assert_deferred()
    assert waiting.ran == ()
    assert [run.context.sender for run in then.ran] == ["shop"]
    assert [run.context.attempt for run in then.ran] == [1]
    assert [arena.bodies("orders", part) for part in ("dead", "refused", "quarantine")] == [[], [], []]


def newcomer(arena: Arena, keyring: Keyring, bundle: bytes) -> bytes:
    """Return a command of a service that has just been added."""
    store = TrustStore(keyring, ambient=arena.clock.ambient)
    store.replace(bundle)
    sealer = Sealer(keyring, store, NAMES, ambient=arena.clock.ambient)
    return sealer.seal(
        arena.envelope(PlaceOrder(), sender=keyring.service), routing_key=routing_key("orders.place_order", 1)
    )


@pytest.mark.attack(81)
async def test_a_grant_that_the_receiver_does_not_know_yet_runs_after_the_reload(arena: Arena) -> None:
    def may_cancel(payload: dict[str, Any]) -> None:
        payload["policy"]["send"].append({"from": "billing", "kind": "command", "name": "orders.*", "to": "orders"})

    newer = arena.realm.publish(may_cancel, to="billing")
    body = arena.sealed(CancelOrder(), sender="billing")

    (await arena.struck(body)).assert_deferred()
    arena.realm.stores["orders"].replace(newer)
    outcome = await arena.elapsed(2)

    assert [run.context.sender for run in outcome.ran] == ["billing"]


@pytest.mark.attack(82)
@pytest.mark.parametrize("off_ms", [5 * MINUTE_MS, -5 * MINUTE_MS])
async def test_a_clock_five_minutes_off_loses_nothing(arena: Arena, off_ms: int) -> None:
    bodies = [
        arena.sealed(issued_at_ms=arena.clock.now_ms + off_ms, expires_at_ms=arena.clock.now_ms + off_ms + DAY_MS)
        for _ in range(20)
    ]

    await arena.struck(*bodies)
    await arena.advance(300)

    assert arena.counts("orders")["handled"] == 20
    assert len({run.context.message_id for run in arena.ran}) == 20
    assert [arena.bodies("orders", part) for part in ("dead", "refused", "quarantine")] == [[], [], []]
    assert arena.waiting("orders") == 0


@pytest.mark.attack(82)
async def test_forgeries_that_claim_the_future_do_not_stop_the_queue(arena: Arena) -> None:
    stranger = SigningKey.generate("test")
    early: dict[int, object] = {9: START_MS + 60 * MINUTE_MS, 10: START_MS + DAY_MS}
    forgeries = [
        resign(arena.sealed(), stranger, fields={4: stranger.kid, 8: uuid4().bytes, 16: {"bv": AHEAD}} | more)
        for more in (NO_CHANGE, early)
        for _ in range(150)
    ]
    unsigned = [resign(arena.sealed(), stranger, fields={8: uuid4().bytes} | early) for _ in range(150)]
    genuine = [arena.sealed() for _ in range(20)]

    outcome = await arena.struck(*forgeries, *unsigned, *genuine)

    assert len(outcome.ran) == 20
    assert outcome.counts["handled"] == 20
    # At most so many claims of ignorance are given the benefit of the doubt at a time.
    assert outcome.waiting <= 100
    assert arena.services["orders"].health.is_ready
    await arena.advance(70)
    assert arena.waiting("orders") == 0
    assert arena.counts("orders")["handled"] == 20
    assert (arena.bodies("orders", "refused"), arena.bodies("orders", "dead")) == ([], [])


@pytest.mark.attack(83)
async def test_a_replica_without_the_new_key_holds_what_it_cannot_open(arena: Arena) -> None:
    rotation = Rotation(arena.realm, "orders")
    arena.realm.publish(rotation.announce)
    arena.realm.publish(rotation.switch)
    body = arena.sealed()

    arena.inject(body)
    service = arena.services["orders"]
    await eventually(lambda: not service.health.is_ready, what="the replica said that it is not ready")

    assert arena.ran == []
    assert arena.bodies("orders", "commands") == [body]
    assert [arena.bodies("orders", part) for part in ("dead", "refused", "quarantine")] == [[], [], []]
    assert any("lacks key" in problem for problem in service.health.problems)
    await service.stop()
    # A replica with the key takes over, and the message is none the worse.
    arena.realm.keyrings["orders"] = rotation.new
    await arena.start("orders")
    await arena.settled()
    assert len(arena.runs_of(arena.realm.opener("orders").verify(body, kinds=EVERY_KIND).id)) == 1


@pytest.mark.attack(83)
async def test_an_event_held_by_one_service_reaches_the_other(arena: Arena) -> None:
    rotation = Rotation(arena.realm, "users")
    arena.realm.publish(rotation.announce)
    arena.realm.publish(rotation.switch)
    body = arena.sealed(OrderPlaced())

    held = NAMES.queue("users", "events")
    arena.broker.inject(NAMES.events, routing_key("orders.order_placed", 1), body)
    await eventually(lambda: not arena.services["users"].health.is_ready, what="users is not ready")

    assert [run.service for run in arena.ran] == ["billing"]
    assert arena.broker.bodies(held) == [body]
    assert arena.services["billing"].health.is_ready
