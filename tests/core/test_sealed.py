"""Routes and labels are values, safe unless somebody says otherwise."""

from dataclasses import replace

from messaging.core.sealed import Label, Route


def test_a_route_is_durable_and_insists_on_a_reader_by_default() -> None:
    route = Route(exchange="messaging.commands", routing_key="orders.place_order.v1")

    assert route.mandatory
    assert route.persistent
    assert route.expiration_ms is None


def test_a_label_is_of_a_first_attempt_by_default() -> None:
    label = Label(message_id="00" * 16, type="orders.place_order/1")

    assert label.attempt == 1
    assert label.first_failed_ms is None


def test_equal_routes_are_one() -> None:
    route = Route(exchange="x", routing_key="k")

    assert {route, replace(route), replace(route, routing_key="other")} == {route, replace(route, routing_key="other")}
