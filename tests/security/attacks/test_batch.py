"""Batches: one signature over many messages, and what can be done to the tree between them."""

import asyncio
import os
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import pytest

from messaging.core.sealed import Sealed
from messaging.core.topology import routing_key
from messaging.errors import ConfigurationError
from messaging.runtime.signing import TickSigner
from messaging.security.outer import Parts, join_parts, split_parts
from messaging.security.seal import Sealer, Unsigned
from tests.support.arena import Arena, PlaceOrder
from tests.support.realm import resign
from tests.support.ticks import signed

PLACE_ORDER: Final = routing_key("orders.place_order", 1)


def batch_of(arena: Arena, size: int, sender: str = "users") -> list[Sealed]:
    """Return messages of one sender under one signature."""
    sealer = arena.realm.sealer(sender)
    return sealer.sign(unsigned_of(arena, sealer, size))


def unsigned_of(arena: Arena, sealer: Sealer, size: int) -> list[Unsigned]:
    """Return messages that wait for their signature."""
    return [sealer.prepare(arena.envelope(PlaceOrder(note=str(n))), routing_key=PLACE_ORDER) for n in range(size)]


@pytest.mark.attack(35)
@pytest.mark.parametrize(
    ("size", "index"), [(0, 0), (1, 1), (4, 4), (4, 5), (4, 127), (128, 128), (129, 0), (129, 128), (255, 0)]
)
async def test_a_place_outside_its_batch_is_malformed(arena: Arena, size: int, index: int) -> None:
    parts = split_parts(batch_of(arena, 4)[0])

    outcome = await arena.struck(join_parts(replace(parts, size=size, index=index)))

    outcome.assert_forged("malformed")


@pytest.mark.attack(35)
async def test_the_largest_batch_is_accepted_and_one_more_is_not_made(arena: Arena) -> None:
    sealer = arena.realm.sealer("users")
    unsigned = unsigned_of(arena, sealer, 129)

    outcome = await arena.struck(*sealer.sign(unsigned[:128]))

    outcome.assert_ran(times=128)
    with pytest.raises(ValueError, match="128"):
        sealer.sign(unsigned)


@pytest.mark.attack(36)
@pytest.mark.parametrize("size", [2, 3, 4, 5, 64])
async def test_a_path_of_another_length_is_malformed(arena: Arena, size: int) -> None:
    parts = split_parts(batch_of(arena, size)[0])
    paths = [parts.path[:-32], parts.path + os.urandom(32), parts.path[:-1], parts.path + b"\0", b""]

    outcome = await arena.struck(*(join_parts(replace(parts, path=path)) for path in paths if path != parts.path))

    outcome.assert_forged("malformed", times=5)


@pytest.mark.attack(36)
async def test_a_single_message_has_no_path(arena: Arena) -> None:
    parts = split_parts(arena.sealed())

    outcome = await arena.struck(join_parts(replace(parts, path=os.urandom(32))))

    outcome.assert_forged("malformed")


@pytest.mark.attack(37)
@pytest.mark.parametrize("size", [2, 5, 7, 64])
async def test_no_other_place_or_size_is_accepted(arena: Arena, size: int) -> None:
    parts = split_parts(batch_of(arena, size)[1])
    elsewhere = [
        join_parts(replace(parts, size=other, index=index))
        for other in (1, size - 1, size, size + 1, 2 * size, 128)
        for index in range(min(other, 128))
        if (other, index) != (size, 1)
    ]

    outcome = await arena.struck(*elsewhere)

    assert outcome.ran == ()
    assert sum(outcome.counts.values()) == len(elsewhere)
    assert outcome.counts.keys() <= {"skipped.malformed", "skipped.signature"}
    assert (outcome.refused, outcome.dead, outcome.waiting) == ((), (), 0)


@pytest.mark.attack(37)
async def test_swapped_hashes_of_a_path_lead_elsewhere(arena: Arena) -> None:
    parts = split_parts(batch_of(arena, 64)[5])
    hashes = [parts.path[at : at + 32] for at in range(0, len(parts.path), 32)]

    outcome = await arena.struck(
        join_parts(replace(parts, path=b"".join(reversed(hashes)))),
        join_parts(replace(parts, path=b"".join([hashes[0]] * len(hashes)))),
        join_parts(replace(parts, path=bytes(len(parts.path)))),
    )

    outcome.assert_forged("signature", times=3)


@pytest.mark.attack(37)
async def test_a_node_of_the_tree_is_no_message(arena: Arena) -> None:
    batch = [split_parts(body) for body in batch_of(arena, 4)]
    # Two leaves passed off as the digests of one message: the first byte of what is hashed tells them apart.
    left, right = batch[0].leaf(), batch[1].leaf()
    forged = replace(batch[0], header=left, block=right, content=b"", size=2, index=0, path=batch[2].leaf())

    outcome = await arena.struck(join_parts(forged))

    outcome.assert_forged("malformed")


@pytest.mark.attack(37)
async def test_a_batch_is_not_the_same_with_its_last_message_twice(arena: Arena) -> None:
    # CVE-2012-2459: where an odd last node is paired with itself, two batches have one root.
    batch = [split_parts(body) for body in batch_of(arena, 3)]
    third = batch[2]
    doubled = replace(third, size=4, index=3, path=third.leaf() + third.path)

    outcome = await arena.struck(join_parts(doubled), join_parts(replace(doubled, index=2)))

    outcome.assert_forged("signature", times=2)


@pytest.mark.attack(37)
async def test_a_cached_root_vouches_for_its_own_members_alone(arena: Arena) -> None:
    batch = batch_of(arena, 8)
    (await arena.struck(*batch)).assert_ran(times=8)
    member = split_parts(batch[3])
    stranger = split_parts(arena.sealed(PlaceOrder(note="not of this batch")))
    grafted = Parts(stranger.header, stranger.block, stranger.content, member.signature, 8, 3, member.path)

    outcome = await arena.struck(join_parts(grafted))

    outcome.assert_forged("signature")


@pytest.mark.attack(37)
async def test_a_cached_root_of_one_sender_is_none_of_another(arena: Arena) -> None:
    batch = batch_of(arena, 4)
    (await arena.struck(*batch)).assert_ran(times=4)
    member = split_parts(batch[0])
    thief = arena.realm.signer("billing")
    renamed = split_parts(resign(batch[0], thief, fields={3: "billing", 4: thief.kid}))

    outcome = await arena.struck(
        join_parts(replace(renamed, signature=member.signature, size=4, index=0, path=member.path))
    )

    outcome.assert_forged("signature")


@pytest.mark.attack(40)
@pytest.mark.parametrize("victim", [0, 31, 63])
async def test_one_corrupted_member_of_64_harms_no_other(arena: Arena, victim: int) -> None:
    batch: list[bytes] = [bytes(body) for body in batch_of(arena, 64)]
    parts = split_parts(batch[victim])
    batch[victim] = join_parts(replace(parts, content=bytes((parts.content[0] ^ 1,)) + parts.content[1:]))

    outcome = await arena.struck(*batch)

    assert len(outcome.ran) == 63
    assert {run.message.note for run in outcome.ran} == {str(n) for n in range(64) if n != victim}
    assert dict(outcome.counts) == {"handled": 63, "skipped.signature": 1}
    assert outcome.quarantined == (batch[victim],)


@pytest.mark.attack(40)
async def test_a_batch_runs_in_any_order_and_in_part(arena: Arena) -> None:
    batch = batch_of(arena, 11)

    outcome = await arena.struck(*batch[::-2])

    outcome.assert_ran(times=6)


class FailingSealer(Sealer):
    """Seals, and fails to sign as often as told."""

    failures: int
    error: Exception

    def sign(self, batch: Sequence[Unsigned]) -> list[Sealed]:
        if self.failures:
            self.failures -= 1
            raise self.error
        return super().sign(batch)


@pytest.mark.attack(69)
async def test_a_cancelled_publisher_leaves_its_neighbours_signed(arena: Arena) -> None:
    sealer = arena.realm.sealer("users")
    signer = TickSigner(sealer)
    tasks = [asyncio.ensure_future(signed(signer, one)) for one in unsigned_of(arena, sealer, 6)]
    await asyncio.sleep(0)
    for cancelled in tasks[::2]:
        cancelled.cancel()

    survivors = [one for one in await asyncio.gather(*tasks, return_exceptions=True) if isinstance(one, bytes)]
    outcome = await arena.struck(*survivors)

    assert len(survivors) == 3
    assert all(task.cancelled() for task in tasks[::2])
    outcome.assert_ran(times=3)


@pytest.mark.attack(69)
@pytest.mark.parametrize("error", [ConfigurationError("no key"), RuntimeError("a defect"), MemoryError()])
async def test_a_signer_that_fails_tells_everyone_who_waits_and_goes_on(arena: Arena, error: Exception) -> None:
    realm = arena.realm
    sealer = FailingSealer(
        realm.keyrings["users"], realm.stores["users"], names=realm.sealer("users")._names, ambient=arena.clock.ambient
    )
    sealer.failures, sealer.error = 1, error
    signer = TickSigner(sealer)
    unsigned = unsigned_of(arena, sealer, 4)

    async with asyncio.timeout(60):
        first = await asyncio.gather(*(signed(signer, one) for one in unsigned), return_exceptions=True)
        second = await asyncio.gather(*(signed(signer, one) for one in unsigned))
    outcome = await arena.struck(*second)

    assert [type(one) for one in first] == [ConfigurationError] * 4
    outcome.assert_ran(times=4)


@pytest.mark.attack(69)
async def test_nobody_waits_when_everybody_was_cancelled(arena: Arena) -> None:
    sealer = arena.realm.sealer("users")
    signer = TickSigner(sealer)
    tasks = [asyncio.ensure_future(signed(signer, one)) for one in unsigned_of(arena, sealer, 3)]
    await asyncio.sleep(0)
    for task in tasks:
        task.cancel()

    await asyncio.gather(*tasks, return_exceptions=True)
    (later,) = await asyncio.gather(signed(signer, *unsigned_of(arena, sealer, 1)))

    assert split_parts(later).size == 1
    (await arena.struck(later)).assert_ran()
