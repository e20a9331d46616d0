from messaging import Context, Service
from messaging.cli.topology_wanted import delayed_services, wanted_of
from messaging.core.topology import Names
from tests.support.shop import OrderPlaced, PlaceOrder

NAMES = Names("ns")


def services() -> tuple[Service, Service]:
    orders, users = Service("orders"), Service("users")

    @orders.on_command(PlaceOrder)
    async def place_order(command: PlaceOrder, context: Context) -> None: ...

    @users.on_event(OrderPlaced)
    async def hear(event: OrderPlaced, context: Context) -> None: ...

    return orders, users


def test_services_that_handle_commands_have_levels_if_anybody_has() -> None:
    assert delayed_services(services(), delays=True) == ["orders"]
    assert delayed_services(services(), delays=False) == []


def test_levels_come_on_top_of_what_a_service_needs_anyway() -> None:
    orders, users = services()
    plain = wanted_of(orders, NAMES, delays=False)
    wanted = wanted_of(orders, NAMES, delays=True)

    assert plain == NAMES.of_service("orders", orders.subscriptions)
    assert len(wanted.queues) - len(plain.queues) == 20
    assert wanted_of(users, NAMES, delays=True) == NAMES.of_service("users", users.subscriptions)
