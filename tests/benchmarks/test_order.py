import pytest

from benchmarks.ours import OrderView, PlaceOrder, place_orders
from benchmarks.peers.order import ORDER_BYTES, Order, order, orders


def test_every_order_has_the_size_of_the_comparison() -> None:
    sizes = {len(order(number).model_dump_json()) for number in (0, 7, 63, 99_999)}

    assert sizes == {ORDER_BYTES}


@pytest.mark.parametrize("size_bytes", [600, 4096, 1_000_000])
def test_an_order_is_as_long_as_asked_for(size_bytes: int) -> None:
    assert len(order(3, size_bytes).model_dump_json()) == size_bytes


def test_ours_carry_the_fields_of_everybodys() -> None:
    fields = {name: field.annotation for name, field in Order.model_fields.items()}

    for model in (PlaceOrder, OrderView):
        assert {name: field.annotation for name, field in model.model_fields.items()} == fields
    assert [command.model_dump() for command in place_orders()] == [one.model_dump() for one in orders()]
