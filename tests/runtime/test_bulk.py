"""What is large is hashed and encrypted beside the loop, one at a time; each decision is taken on it."""

import asyncio
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from messaging.core.envelope import Envelope
from messaging.core.topology import routing_key
from messaging.errors import DecryptionError, MalformedError, PolicyError, SignatureError, UnknownKeyError
from messaging.runtime.bulk import BULK_BYTES, Bulk
from messaging.security.open import Opener
from messaging.security.outer import join_parts, split_parts
from messaging.security.seal import Sealer, Unsigned
from tests.support.realm import EVERY_KIND, NAMES, Realm, resign

KEY = routing_key("orders.place_order", 1)
QUEUE = NAMES.queue("orders", "commands")
LARGE = b"x" * (BULK_BYTES + 1)


@pytest.fixture
def realm() -> Realm:
    return Realm()


async def sealed(realm: Realm, **changes: Any) -> bytes:
    sealer = realm.sealer("users")
    unsigned = await Bulk().prepared(sealer, realm.envelope(**changes), key=KEY)
    return sealer.sign([unsigned])[0]


async def opened(realm: Realm, body: bytes) -> Envelope:
    bulk, opener = Bulk(), realm.opener("orders")
    return await bulk.decrypted(opener, await bulk.verified(opener, body, kinds=EVERY_KIND, queue=QUEUE))


class Watched:
    """A sealer and an opener that note in which thread the work is done."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.threads: set[int] = set()
        for owner, name in ((Sealer, "begin"), (Opener, "opening")):
            monkeypatch.setattr(owner, name, self._noting(getattr(owner, name)))

    def _noting(self, method: Callable[..., Callable[[], Any]]) -> Callable[..., Callable[[], Any]]:
        def begin(*args: Any, **how: Any) -> Callable[[], Any]:
            work = method(*args, **how)

            def noted() -> Any:
                self.threads.add(threading.get_ident())
                return work()

            return noted

        return begin


@pytest.mark.parametrize("size", [0, BULK_BYTES, BULK_BYTES + 1, 4_000_000])
async def test_what_was_sealed_opens(realm: Realm, size: int) -> None:
    payload = b"p" * size

    envelope = await opened(realm, await sealed(realm, payload=payload))

    assert envelope.payload == payload


async def test_large_bodies_are_worked_on_in_another_thread(realm: Realm, monkeypatch: pytest.MonkeyPatch) -> None:
    watched = Watched(monkeypatch)

    await opened(realm, await sealed(realm, payload=LARGE))

    assert watched.threads
    assert threading.get_ident() not in watched.threads


async def test_small_ones_never_are(realm: Realm, monkeypatch: pytest.MonkeyPatch) -> None:
    watched = Watched(monkeypatch)

    await opened(realm, await sealed(realm, payload=b"small"))

    assert watched.threads == set()


async def test_the_loop_goes_on_meanwhile_and_the_next_one_waits(realm: Realm) -> None:
    bulk, sealer, moved = Bulk(), realm.sealer("users"), threading.Event()
    order: list[str] = []

    def slow() -> Unsigned:
        # Set by the loop, which is therefore not held up.
        assert moved.wait(10)
        order.append("first")
        return work()

    work = sealer.begin(realm.envelope(payload=LARGE), routing_key=KEY)
    first = asyncio.create_task(bulk._aside(slow))
    second = asyncio.create_task(bulk._aside(lambda: order.append("second")))
    for _ in range(5):
        await asyncio.sleep(0)
    before = list(order)
    asyncio.get_running_loop().call_soon(moved.set)
    await asyncio.gather(first, second)

    assert (before, order) == ([], ["first", "second"])


async def test_policy_is_asked_before_anything_is_worked_on(realm: Realm) -> None:
    with pytest.raises(PolicyError):
        await Bulk().prepared(realm.sealer("billing"), realm.envelope(sender="billing", payload=LARGE), key=KEY)


async def test_keys_are_those_in_force_after_the_hashing(realm: Realm, monkeypatch: pytest.MonkeyPatch) -> None:
    body, bulk, opener = await sealed(realm, payload=LARGE), Bulk(), realm.opener("orders")

    async def meanwhile(work: Callable[[], Any]) -> Any:
        done = work()
        realm.publish(realm.revoke("users", "compromise"))
        return done

    monkeypatch.setattr(bulk, "_aside", meanwhile)

    with pytest.raises(UnknownKeyError, match="compromised"):
        await bulk.verified(opener, body, kinds=EVERY_KIND, queue=QUEUE)


async def test_what_is_wrong_with_a_large_body_is_told_as_ever(realm: Realm) -> None:
    body = await sealed(realm, payload=LARGE)
    parts = split_parts(body)
    flipped = bytes((parts.content[0] ^ 1,)) + parts.content[1:]

    with pytest.raises(MalformedError):
        await opened(realm, body[:-1])
    with pytest.raises(SignatureError):
        await opened(realm, join_parts(replace(parts, content=flipped)))
    with pytest.raises(DecryptionError):
        await opened(realm, resign(body, realm.signer("users"), content=flipped))
