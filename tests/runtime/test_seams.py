"""What a harness replaces is replaced, and nothing is when there is none."""

from messaging import Context, Service, Settings
from messaging.core.envelope import Envelope
from messaging.core.message import Message
from messaging.runtime.middleware import Call
from messaging.runtime.router import Handler
from messaging.runtime.seams import Seams
from messaging.testing.clock import FixedClock
from tests.support.shop import PlaceOrder


async def test_settings_clock_and_handlers_are_those_of_the_seams() -> None:
    told: list[tuple[Message, int]] = []
    wrapped: list[str] = []
    clock = FixedClock()
    orders = Service("orders", Settings(broker_url="amqp://nowhere.example/"))

    @orders.on_command(PlaceOrder)
    async def place_order(command: PlaceOrder, context: Context) -> None:
        raise AssertionError("the seam stands in its place")

    async def instead(message: Message, context: Context) -> None:
        wrapped.append(context.message_name)

    def around(handler: Handler) -> Call:
        assert handler.call is place_order
        return instead

    def note(message: Message, envelope: Envelope) -> None:
        told.append((message, envelope.issued_at_ms))

    seams = Seams(settings=Settings.development(), ambient=clock.ambient, around=around, on_published=note)
    await orders.start(seams=seams)
    await orders.send(PlaceOrder())
    await orders.settled()
    await orders.stop()

    assert told == [(PlaceOrder(), clock.now_ms())]
    assert wrapped == ["orders.place_order"]
