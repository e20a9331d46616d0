"""One signature per tick: who shares it, who leaves it, and what happens when it cannot be made."""

import asyncio
from collections.abc import Sequence

import pytest

from messaging.core.sealed import Sealed
from messaging.errors import ConfigurationError
from messaging.runtime.signing import TickSigner
from messaging.security.outer import split_parts
from messaging.security.seal import Sealer, Unsigned
from tests.support.realm import EVERY_KIND, Realm


class CountingSealer(Sealer):
    """A real sealer that counts its signatures, and fails when told."""

    batches: list[int]
    failure: Exception | None = None

    def sign(self, batch: Sequence[Unsigned]) -> list[Sealed]:
        self.batches.append(len(batch))
        if self.failure is not None:
            raise self.failure
        return super().sign(batch)


@pytest.fixture
def realm() -> Realm:
    return Realm()


@pytest.fixture
def sealer(realm: Realm) -> CountingSealer:
    made = CountingSealer(
        realm.keyrings["users"], realm.stores["users"], realm.sealer("users")._names, ambient=realm.clock.ambient
    )
    made.batches = []
    return made


def unsigned(realm: Realm, sealer: Sealer) -> Unsigned:
    return sealer.prepare(realm.envelope(), routing_key="orders.place_order.v1")


async def test_one_message_is_signed_alone_in_its_tick(realm: Realm, sealer: CountingSealer) -> None:
    sealed = await TickSigner(sealer).sign(unsigned(realm, sealer))

    assert split_parts(sealed).size == 1
    realm.opener("orders").verify(sealed, kinds=EVERY_KIND)


async def test_what_a_tick_brings_shares_one_signature(realm: Realm, sealer: CountingSealer) -> None:
    signer = TickSigner(sealer)

    sealed = await asyncio.gather(*(signer.sign(unsigned(realm, sealer)) for _ in range(7)))

    assert sealer.batches == [7]
    assert {split_parts(one).size for one in sealed} == {7}
    assert [split_parts(one).index for one in sealed] == list(range(7))
    for one in sealed:
        realm.opener("orders").verify(one, kinds=EVERY_KIND)


async def test_a_full_batch_does_not_wait_for_the_end_of_the_tick(realm: Realm, sealer: CountingSealer) -> None:
    signer = TickSigner(sealer, batch_max=3)

    sealed = await asyncio.gather(*(signer.sign(unsigned(realm, sealer)) for _ in range(8)))

    assert sealer.batches == [3, 3, 2]
    assert len(set(sealed)) == 8


async def test_a_batch_of_one_switches_batching_off(realm: Realm, sealer: CountingSealer) -> None:
    signer = TickSigner(sealer, batch_max=1)

    await asyncio.gather(*(signer.sign(unsigned(realm, sealer)) for _ in range(3)))

    assert sealer.batches == [1, 1, 1]


async def test_a_cancelled_publish_leaves_the_batch(realm: Realm, sealer: CountingSealer) -> None:
    signer = TickSigner(sealer)
    stays = asyncio.create_task(signer.sign(unsigned(realm, sealer)))
    goes = asyncio.create_task(signer.sign(unsigned(realm, sealer)))
    loop = asyncio.get_running_loop()
    loop.call_soon(goes.cancel)

    # The cancellation comes between the append and the flush of the same tick.
    sealed = await stays
    await asyncio.wait([goes])

    assert goes.cancelled()
    assert split_parts(sealed).size == sealer.batches[0]


async def test_when_all_are_cancelled_nothing_is_signed(realm: Realm, sealer: CountingSealer) -> None:
    signer = TickSigner(sealer)
    made = unsigned(realm, sealer)
    future: asyncio.Future[Sealed] = asyncio.get_running_loop().create_future()
    future.cancel()
    signer._waiting.append((made, future))

    signer._flush()

    assert sealer.batches == []
    assert signer._waiting == []


async def test_a_flush_that_finds_nothing_returns(sealer: CountingSealer) -> None:
    TickSigner(sealer)._flush()

    assert sealer.batches == []


async def test_when_signing_fails_all_hear_of_it_and_the_next_batch_is_fine(
    realm: Realm, sealer: CountingSealer
) -> None:
    signer = TickSigner(sealer)
    sealer.failure = ConfigurationError("no key")

    results = await asyncio.gather(*(signer.sign(unsigned(realm, sealer)) for _ in range(3)), return_exceptions=True)
    sealer.failure = None
    sealed = await signer.sign(unsigned(realm, sealer))

    assert [str(result) for result in results] == ["no key"] * 3
    assert split_parts(sealed).size == 1


async def test_a_defect_in_signing_leaves_nobody_waiting_and_is_reported(realm: Realm, sealer: CountingSealer) -> None:
    signer = TickSigner(sealer)
    sealer.failure = RuntimeError("a defect")
    reported: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context["exception"]))

    async with asyncio.timeout(2):
        results = await asyncio.gather(
            *(signer.sign(unsigned(realm, sealer)) for _ in range(2)), return_exceptions=True
        )

    assert all(isinstance(result, ConfigurationError) for result in results)
    assert reported == [sealer.failure]
