"""An operator, connected: who may be one, whose keys, and what one does."""

import subprocess
import sys
from pathlib import Path

import pytest

from messaging import ConfigurationError, Context, Reject, Service, Settings, open_operator
from messaging.ambient import real_ambient
from messaging.core.topology import Subscriptions
from messaging.security.development_files import Contract, init_development
from tests.support.shop import CountOrders, OrderPlaced, PlaceOrder

OPERATOR = "ops:dev"


async def test_an_operator_sends_asks_publishes_and_works_on_dead_letters() -> None:
    settings = Settings.development()
    orders = Service("orders", settings)

    @orders.on_command(PlaceOrder)
    async def place_order(command: PlaceOrder, context: Context) -> None:
        if context.replayed_by is None:
            raise Reject("not yet")

    @orders.on_request(CountOrders)
    async def count_orders(request: CountOrders, context: Context) -> int:
        return 4

    async with orders, open_operator(settings, OPERATOR) as operator:
        assert operator.name == OPERATOR
        await operator.send(PlaceOrder())
        await operator.publish(OrderPlaced())
        assert await operator.request(CountOrders()) == 4
        await orders.settled()
        assert [letter.fault.reason for letter in await operator.dead_letters.list("orders")] == ["not yet"]
        await operator.dead_letters.replay("orders", reason="now")
        await orders.settled()
        assert await operator.dead_letters.list("orders") == []


@pytest.mark.parametrize("name", ["alice", "orders", "ops:", "ops:Alice"])
async def test_an_operator_is_called_ops_something(name: str) -> None:
    with pytest.raises(ConfigurationError, match="write ops:<name>"):
        async with open_operator(Settings.development(), name):
            raise AssertionError("it does not open")


async def test_an_operators_keys_come_from_the_folder(tmp_path: Path) -> None:
    folder = tmp_path / "keys"
    init_development(folder, {"orders": Contract(handles=Subscriptions())}, ambient=real_ambient())

    async with open_operator(Settings(broker_url="memory://", keys=folder), OPERATOR) as operator:
        assert operator.keyring.is_operator


def test_a_service_does_not_import_what_only_operators_need() -> None:
    program = "import sys; from messaging import Service; print('messaging.runtime.dead_letters' in sys.modules)"

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=240, check=True)

    assert done.stdout.strip() == "False"
