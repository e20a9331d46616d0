"""One signature per tick: who shares it, who leaves it, and what happens when it cannot be made."""

import asyncio
from collections.abc import Awaitable, Sequence
from uuid import uuid4

import pytest

from messaging import Context, Request, Service, Settings
from messaging.core.sealed import Label, Route, Sealed
from messaging.errors import ConfigurationError
from messaging.runtime.signing import TickSigner
from messaging.security.outer import split_parts
from messaging.security.seal import Sealer, Unsigned
from messaging.transports.memory import MemoryBroker
from messaging.transports.memory.broker import Receipt
from messaging.transports.memory.parcel import Parcel
from tests.support.realm import EVERY_KIND, Realm
from tests.support.shop import CountOrders, OrderPlaced, PlaceOrder
from tests.support.ticks import signed


class CountingSealer(Sealer):
    """A real sealer that counts its signatures, and fails when told."""

    batches: list[int]
    failure: Exception | None = None

    def sign(self, batch: Sequence[Unsigned]) -> list[Sealed]:
        self.batches.append(len(batch))
        if self.failure is not None:
            raise self.failure
        return super().sign(batch)


class Greet(Request[str], name="users.greet"):
    """A question that the service under test asks."""


class WatchedBroker(MemoryBroker):
    """The embedded broker; remembers each sealed message by its exchange."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[str, bytes]] = []

    def publish(self, parcel: Parcel) -> Receipt:
        self.seen.append((parcel.exchange, parcel.body))
        return super().publish(parcel)


class Shop:
    """A service `orders` that can send everything at once when told, and its broker."""

    def __init__(self, *, signature_batch_max: int = 64) -> None:
        self.settings = Settings.development(signature_batch_max=signature_batch_max)
        self.broker = WatchedBroker()
        self.settings.shared(MemoryBroker, lambda: self.broker)
        self.orders = Service("orders", self.settings)
        self.told = asyncio.Event()
        self.asked = asyncio.Event()

        @self.orders.on_request(CountOrders)
        async def count(request: CountOrders, context: Context) -> int:
            self.asked.set()
            await self.told.wait()
            return 7

        @self.orders.on_command(PlaceOrder)
        async def place(command: PlaceOrder, context: Context) -> None:
            """Be there, so that the command has somewhere to go."""

    async def when_told(self, sending: Awaitable[object]) -> None:
        """Wait for the word, then send."""
        await self.told.wait()
        await sending

    def sizes(self) -> list[tuple[str, int]]:
        """Return exchange and size of the batch of each message."""
        return sorted((exchange, split_parts(body).size) for exchange, body in self.broker.seen)


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
    sealed = await signed(TickSigner(sealer), unsigned(realm, sealer))

    assert split_parts(sealed).size == 1
    realm.opener("orders").verify(sealed, kinds=EVERY_KIND)


async def test_what_a_tick_brings_shares_one_signature(realm: Realm, sealer: CountingSealer) -> None:
    signer = TickSigner(sealer)

    sealed = await asyncio.gather(*(signed(signer, unsigned(realm, sealer)) for _ in range(7)))

    assert sealer.batches == [7]
    assert {split_parts(one).size for one in sealed} == {7}
    assert [split_parts(one).index for one in sealed] == list(range(7))
    for one in sealed:
        realm.opener("orders").verify(one, kinds=EVERY_KIND)


async def test_a_full_batch_does_not_wait_for_the_end_of_the_tick(realm: Realm, sealer: CountingSealer) -> None:
    signer = TickSigner(sealer, batch_max=3)

    sealed = await asyncio.gather(*(signed(signer, unsigned(realm, sealer)) for _ in range(8)))

    assert sealer.batches == [3, 3, 2]
    assert len(set(sealed)) == 8


async def test_a_batch_of_one_switches_batching_off(realm: Realm, sealer: CountingSealer) -> None:
    signer = TickSigner(sealer, batch_max=1)

    await asyncio.gather(*(signed(signer, unsigned(realm, sealer)) for _ in range(3)))

    assert sealer.batches == [1, 1, 1]


async def test_the_end_of_a_tick_is_told_once_after_its_messages_were_passed_on(
    realm: Realm, sealer: CountingSealer
) -> None:
    told: list[str] = []
    signer = TickSigner(sealer, on_tick=lambda: told.append("end"))

    await asyncio.gather(*(_passed_on(signer, unsigned(realm, sealer), told) for _ in range(3)))

    assert told == ["sent", "sent", "sent", "end"]


async def test_a_full_batch_is_no_end_of_a_tick(realm: Realm, sealer: CountingSealer) -> None:
    told: list[str] = []
    signer = TickSigner(sealer, batch_max=3, on_tick=lambda: told.append("end"))

    await asyncio.gather(*(_passed_on(signer, unsigned(realm, sealer), told) for _ in range(4)))

    # More may come behind a full batch: it is written at the end of the turn, with that.
    assert told == ["sent", "sent", "sent", "sent", "end"]


async def test_a_tick_whose_batch_was_full_ends_without_a_word(realm: Realm, sealer: CountingSealer) -> None:
    told: list[str] = []
    signer = TickSigner(sealer, batch_max=3, on_tick=lambda: told.append("end"))

    await asyncio.gather(*(_passed_on(signer, unsigned(realm, sealer), told) for _ in range(3)))
    await asyncio.sleep(0)

    assert told == ["sent", "sent", "sent"]


async def _passed_on(signer: TickSigner, made: Unsigned, told: list[str]) -> None:
    done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def sent(_: Sealed) -> None:
        told.append("sent")
        asyncio.get_running_loop().call_soon(done.set_result, None)

    signer.pass_on(made, sent, waiting=done)
    await done


async def test_a_cancelled_publish_leaves_the_batch(realm: Realm, sealer: CountingSealer) -> None:
    signer = TickSigner(sealer)
    stays = asyncio.create_task(signed(signer, unsigned(realm, sealer)))
    goes = asyncio.create_task(signed(signer, unsigned(realm, sealer)))
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
    signer._waiting.append((made, future, future.set_result, ()))

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

    results = await asyncio.gather(*(signed(signer, unsigned(realm, sealer)) for _ in range(3)), return_exceptions=True)
    sealer.failure = None
    sealed = await signed(signer, unsigned(realm, sealer))

    assert [str(result) for result in results] == ["no key"] * 3
    assert split_parts(sealed).size == 1


async def test_a_defect_in_signing_leaves_nobody_waiting_and_is_reported(realm: Realm, sealer: CountingSealer) -> None:
    signer = TickSigner(sealer)
    sealer.failure = RuntimeError("a defect")
    reported: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context["exception"]))

    async with asyncio.timeout(60):
        results = await asyncio.gather(
            *(signed(signer, unsigned(realm, sealer)) for _ in range(2)), return_exceptions=True
        )

    assert all(isinstance(result, ConfigurationError) for result in results)
    assert reported == [sealer.failure]


async def everything_at_once(shop: Shop) -> None:
    asker, hearer = Service("gateway", shop.settings), Service("users", shop.settings)

    @hearer.on_event(OrderPlaced)
    async def placed(event: OrderPlaced, context: Context) -> None:
        """Hear it, so that it is sealed at all."""

    @hearer.on_request(Greet)
    async def greet(request: Greet, context: Context) -> str:
        return "hello"

    async with hearer, shop.orders, asker, asyncio.TaskGroup() as tasks:
        # The first request declares the reply queue, which takes a while.
        await shop.orders.request(Greet())
        answer = tasks.create_task(asker.request(CountOrders()))
        await shop.asked.wait()
        tasks.create_task(shop.when_told(shop.orders.send(PlaceOrder(number=1))))
        tasks.create_task(shop.when_told(shop.orders.publish(OrderPlaced(number=1))))
        tasks.create_task(shop.when_told(shop.orders.request(Greet())))
        await asyncio.sleep(0)
        shop.broker.seen.clear()
        shop.told.set()
        assert await answer == 7


async def test_command_event_request_and_reply_of_one_tick_share_one_signature() -> None:
    shop = Shop()

    await everything_at_once(shop)

    of_orders = [size for size in shop.sizes() if size[1] > 1]
    assert of_orders == [
        ("messaging.commands", 4),
        ("messaging.events", 4),
        ("messaging.replies", 4),
        ("messaging.requests", 4),
    ]
    signatures = {split_parts(body).signature for _, body in shop.broker.seen if split_parts(body).size == 4}
    assert len(signatures) == 1


async def test_with_batches_of_one_a_service_signs_each_message_alone() -> None:
    shop = Shop(signature_batch_max=1)

    await everything_at_once(shop)

    assert {size for _, size in shop.sizes()} == {1}
    assert len(shop.broker.seen) >= 4


async def test_what_is_passed_on_needs_no_task_to_wait_for_it(realm: Realm, sealer: CountingSealer) -> None:
    signer, sent = TickSigner(sealer), list[Sealed]()
    waiting = [asyncio.get_running_loop().create_future() for _ in range(3)]
    waiting[1].cancel()

    for one in waiting:
        signer.pass_on(unsigned(realm, sealer), sent.append, waiting=one)
    assert sent == []
    await asyncio.sleep(0)

    assert len(sent) == 2
    assert sealer.batches == [2]


async def test_what_cannot_be_signed_is_told_to_whoever_waits(realm: Realm, sealer: CountingSealer) -> None:
    sealer.failure = ConfigurationError("no key")
    waiting: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    TickSigner(sealer).pass_on(unsigned(realm, sealer), lambda _: pytest.fail("sent"), waiting=waiting)

    with pytest.raises(ConfigurationError, match="no key"):
        await waiting


async def test_what_cannot_be_passed_on_fails_alone_and_is_reported(realm: Realm, sealer: CountingSealer) -> None:
    signer, sent, reported = TickSigner(sealer), list[Sealed](), list[object]()
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: reported.append(context["exception"]))
    defect = OverflowError("a defect of the transport")
    waiting = [loop.create_future() for _ in range(4)]

    def broken(_: Sealed) -> None:
        raise defect

    def told_before(_: Sealed) -> None:
        waiting[1].set_result(None)
        raise defect

    for one, take in zip(waiting, (broken, told_before, sent.append, sent.append), strict=True):
        signer.pass_on(unsigned(realm, sealer), take, waiting=one)
    await asyncio.sleep(0)

    assert len(sent) == 2
    with pytest.raises(ConfigurationError, match="a defect of the transport"):
        await waiting[0]
    assert waiting[1].result() is None
    assert reported == [defect, defect]


async def test_what_an_outbox_gets_shares_a_signature_and_keeps_its_place(realm: Realm, sealer: CountingSealer) -> None:
    signer = TickSigner(sealer)
    route, label = Route(exchange="e", routing_key="k"), Label(message_id=uuid4().hex, type="orders.place/1")

    begun = [signer.sealing(unsigned(realm, sealer), route=route, label=label, lane=lane) for lane in (None, "a", "b")]
    outgoing = await asyncio.gather(*begun)

    assert sealer.batches == [3]
    assert [out.partition_key for out in outgoing] == [None, "a", "b"]
    assert all((out.route, out.label) == (route, label) for out in outgoing)
    assert len({out.sealed for out in outgoing}) == 3
