from datetime import timedelta
from uuid import UUID, uuid4

from messaging import Command, Context, Event, Service
from messaging.core.partition import slot_of, slot_words
from messaging.core.schedule import Cancellation, Draft
from messaging.runtime.staging import Outlets, StagingOutlet
from messaging.stores.base import Outgoing, Scheduled, Sealing
from messaging.testing import Harness


class PlaceOrder(Command, name="orders.place_order"):
    pass


class OrderPlaced(Event, name="orders.order_placed"):
    pass


class Unit:
    """A transaction that only remembers what was staged."""

    def __init__(self) -> None:
        self.staged: list[Outgoing] = []
        self.scheduled: list[Scheduled] = []
        self.cancelled: list[UUID] = []

    def find(self, kind: type) -> object | None:
        return None

    async def stage(self, message: Outgoing | Sealing) -> None:
        self.staged.append(message if isinstance(message, Outgoing) else await message())

    async def schedule(self, scheduled: Scheduled) -> None:
        self.scheduled.append(scheduled)

    async def cancel(self, message_id: UUID) -> Cancellation:
        self.cancelled.append(message_id)
        return Cancellation.CANCELLED


def services() -> tuple[Service, Service]:
    orders, users = Service("orders"), Service("users")

    @orders.on_command(PlaceOrder)
    async def place_order(command: PlaceOrder, context: Context) -> None: ...

    @users.on_event(OrderPlaced)
    async def hear(event: OrderPlaced, context: Context) -> None: ...

    return orders, users


async def test_what_is_sent_is_sealed_into_the_transaction_and_goes_nowhere_yet() -> None:
    orders, users = services()
    async with Harness(orders, users) as h:
        unit = Unit()
        outlet = StagingOutlet(orders.publisher, unit)

        message_id = await outlet.send(PlaceOrder(), message_id=uuid4())
        await outlet.publish(OrderPlaced())

        assert [out.label.type for out in unit.staged] == ["orders.place_order/1", "orders.order_placed/1"]
        assert [out.route.mandatory for out in unit.staged] == [True, False]
        assert unit.staged[0].label.message_id == message_id.hex
        assert h.bodies("orders", "commands") == []


async def test_an_event_without_subscribers_is_not_staged() -> None:
    orders, _ = services()
    async with Harness(orders):
        unit = Unit()

        await StagingOutlet(orders.publisher, unit).publish(OrderPlaced())

        assert unit.staged == []


async def test_what_is_for_later_goes_on_the_schedule_of_the_transaction_and_is_sealed_at_its_time() -> None:
    orders, users = services()
    async with Harness(orders, users) as h:
        unit = Unit()
        outlet = StagingOutlet(orders.publisher, unit)

        message_id = await outlet.send(PlaceOrder(), deliver_at=h.now + timedelta(seconds=5))
        await outlet.publish(OrderPlaced(), deliver_at=h.now - timedelta(seconds=5))

        [waiting] = unit.scheduled
        assert (waiting.message_id, waiting.message_type) == (message_id, "orders.place_order/1")
        assert waiting.deliver_at_ms == h.now.timestamp() * 1000 + 5000
        assert Draft.unpack(waiting.draft, sender="orders").envelope.id == message_id
        assert [out.label.type for out in unit.staged] == ["orders.order_placed/1"]


async def test_a_cancellation_belongs_to_the_transaction() -> None:
    orders, users = services()
    async with Harness(orders, users):
        unit = Unit()
        message_id = uuid4()

        assert await StagingOutlet(orders.publisher, unit).cancel(message_id) == "cancelled"

        assert unit.cancelled == [message_id]


async def test_a_run_without_a_transaction_sends_directly() -> None:
    orders, users = services()
    commits: list[None] = []
    async with Harness(orders, users):
        outlets = Outlets(orders.publisher, on_commit=lambda: commits.append(None))
        outlets.note_commit()

        assert outlets.of(None) is orders.publisher
        assert isinstance(outlets.of(Unit()), StagingOutlet)
        assert commits == [None]


class Book(Command, name="orders.book", key="account"):
    account: str


async def test_command_with_a_key_leaves_in_the_lane_of_its_slot_and_a_scheduled_one_keeps_it() -> None:
    orders, users = Service("orders", partitions=2), Service("users")

    @orders.on_command(Book)
    async def book(command: Book, context: Context) -> None: ...

    async with Harness(orders, users) as h:
        unit = Unit()
        outlet = StagingOutlet(users.publisher, unit)

        await outlet.send(Book(account="a"))
        await outlet.send(Book(account="a"), key="b")
        await outlet.send(Book(account="c"), deliver_at=h.now + timedelta(hours=1))

    assert [out.partition_key for out in unit.staged] == [f"orders/{slot_of(key)}" for key in "ab"]
    assert unit.staged[0].route.routing_key == f"orders.book.v1.{slot_words(slot_of('a'))}"
    [waiting] = unit.scheduled
    assert Draft.unpack(waiting.draft, sender="users").envelope.slot == slot_of("c")
