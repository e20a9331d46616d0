"""Messages: an explicit wire name, frozen, strict when constructed."""

import re
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import pytest
from pydantic import BaseModel, ConfigDict, ValidationError

from messaging.core.envelope import CODEC_JSON, CODEC_MSGPACK, Kind
from messaging.core.message import Command, Event, Message, Request, contract_of, slot_among
from messaging.core.partition import slot_of
from messaging.errors import ConfigurationError, RemoteFailure

R = TypeVar("R")


class View(BaseModel):
    status: str


class OutOfStock(RemoteFailure, name="orders.out_of_stock"):
    sku: str


class Closed(RemoteFailure, name="orders.closed"):
    pass


class PlaceOrder(Command, name="orders.place_order", version=2, codec="json"):
    total_cents: int
    name: str = "a field may be called as the keyword is"


class OrderPlaced(Event, name="orders.order_placed"):
    pass


class GetOrder(Request[View], name="orders.get_order", raises=(OutOfStock, Closed)):
    order_id: int


class CountOrders(Request[int], name="orders.count_orders"):
    pass


def test_a_class_tells_its_contract() -> None:
    contract = contract_of(PlaceOrder)

    assert (contract.kind, contract.name, contract.version) == (Kind.COMMAND, "orders.place_order", 2)
    assert (contract.owner, contract.type, contract.codec) == ("orders", "orders.place_order/2", CODEC_JSON)
    assert contract.reply is None
    assert contract_of(PlaceOrder(total_cents=1)) is contract


def test_msgpack_and_version_one_are_the_defaults() -> None:
    contract = contract_of(OrderPlaced)

    assert (contract.kind, contract.version, contract.codec, contract.raises) == (Kind.EVENT, 1, CODEC_MSGPACK, ())


def test_a_request_tells_its_answer_and_its_failures() -> None:
    contract = contract_of(GetOrder)

    assert contract.kind is Kind.REQUEST
    assert contract.reply is not None
    assert contract.reply.validate_python({"status": "placed"}) == View(status="placed")
    assert contract.raises == (OutOfStock, Closed)


def test_the_answer_may_be_any_type() -> None:
    contract = contract_of(CountOrders)

    assert contract.reply is not None
    assert contract.reply.validate_python(3) == 3


def test_the_answer_is_found_through_an_abstract_base() -> None:
    class Asking(Request[View]):
        order_id: int

    class Ask(Asking, name="orders.ask"):
        pass

    reply = contract_of(Ask).reply

    assert reply is not None
    assert reply.validate_python({"status": "x"}) == View(status="x")


def test_a_subclass_does_not_share_the_wire_name() -> None:
    class Special(PlaceOrder):
        pass

    with pytest.raises(ConfigurationError, match="Special is abstract and cannot be sent or handled"):
        contract_of(Special)


@pytest.mark.parametrize("cls", [Command, Event, Request, Message])
def test_the_bases_are_abstract(cls: type[Message]) -> None:
    with pytest.raises(ConfigurationError, match=f"{cls.__name__} is abstract"):
        contract_of(cls)


def test_an_abstract_message_says_so_by_its_class() -> None:
    class Draft(Command):
        text: str

    with pytest.raises(ConfigurationError, match="Draft is abstract"):
        contract_of(Draft(text="x"))


def test_what_is_no_message_says_so() -> None:
    thing: Any = {"order_id": 1}

    with pytest.raises(ConfigurationError, match="dict is no message"):
        contract_of(thing)


def test_a_message_does_not_change() -> None:
    order = PlaceOrder(total_cents=1)

    with pytest.raises(ValidationError, match="frozen"):
        order.total_cents = 2  # type: ignore[misc]
    assert hash(order) == hash(PlaceOrder(total_cents=1))


def test_an_unknown_field_is_refused_when_it_is_constructed() -> None:
    with pytest.raises(ValidationError, match="total_euros"):
        PlaceOrder(total_cents=1, total_euros=2)  # type: ignore[call-arg]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_number_is_finite(value: float) -> None:
    class Measure(Command, name="orders.measure"):
        amount: float

    with pytest.raises(ValidationError, match="finite"):
        Measure(amount=value)


def from_message() -> None:
    class Bare(Message, name="orders.bare"):
        pass


def thawed_by_config() -> None:
    class Thawed(Command, name="orders.thawed"):
        model_config = ConfigDict(frozen=False)


def thawed_by_keyword() -> None:
    class Thawed(Command, name="orders.thawed", frozen=False):
        pass


def without_answer() -> None:
    class Ask(Request, name="orders.ask"):  # type: ignore[type-arg]
        pass


def with_open_answer() -> None:
    class Ask(Request[R], Generic[R], name="orders.ask"):
        pass


def with_answer_in_quotes() -> None:
    class Ask(Request["Later"], name="orders.ask"):  # type: ignore[name-defined]
        pass


def command_that_raises() -> None:
    class Place(Command, name="orders.place", raises=(OutOfStock,)):
        pass


def one_failure_without_a_tuple() -> None:
    class Ask(Request[int], name="orders.ask", raises=OutOfStock):
        pass


def foreign_failure() -> None:
    class Ask(Request[int], name="orders.ask", raises=(KeyError,)):
        pass


def nameless_failure() -> None:
    class Ask(Request[int], name="orders.ask", raises=(RemoteFailure,)):
        pass


def failures_of_one_name() -> None:
    class AlsoOutOfStock(RemoteFailure, name="orders.out_of_stock"):
        pass

    class Ask(Request[int], name="orders.ask", raises=(OutOfStock, AlsoOutOfStock)):
        pass


@pytest.mark.parametrize(
    ("define", "words"),
    [
        (from_message, "derive from Command, Event or Request"),
        (thawed_by_config, "messages are frozen"),
        (thawed_by_keyword, "messages are frozen"),
        (without_answer, "say what the answer is"),
        (with_open_answer, "say what the answer is"),
        (with_answer_in_quotes, "say what the answer is"),
        (command_that_raises, "only requests declare raises="),
        (one_failure_without_a_tuple, "raises= takes a tuple"),
        (foreign_failure, "raises= takes RemoteFailure classes"),
        (nameless_failure, "raises= takes RemoteFailure classes"),
        (failures_of_one_name, "share a name"),
    ],
)
def test_a_class_that_the_wire_cannot_carry_is_refused_where_it_is_defined(
    define: Callable[[], None], words: str
) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(words)):
        define()


@pytest.mark.parametrize(
    ("keywords", "words"),
    [
        ({"name": "orders"}, "is no message name"),
        ({"name": "orders.Place"}, "is no message name"),
        ({"name": "orders.place\n"}, "is no message name"),
        ({"name": "ops.place"}, "is no message name"),
        ({"name": "оrders.place"}, "is no message name"),  # noqa: RUF001 - a Cyrillic letter
        ({"name": ""}, "is no message name"),
        ({"name": "orders.place", "version": 0}, "version=0 must be an int"),
        ({"name": "orders.place", "version": 100_000}, "version=100000 must be an int"),
        ({"name": "orders.place", "version": True}, "version=True must be an int"),
        ({"name": "orders.place", "version": "1"}, "version='1' must be an int"),
        ({"name": "orders.place", "codec": "yaml"}, "must be one of msgpack, json"),
    ],
)
def test_a_keyword_out_of_its_range_is_refused(keywords: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(words)):
        type("Wrong", (Command,), {}, **keywords)


def test_key_is_a_field_or_what_a_function_says() -> None:
    class Move(Command, name="orders.move", key=lambda move: move.source or None):
        source: str

    class Count(Command, name="orders.count", key="number"):
        number: int

    for message, key in ((Move(source="a"), "a"), (Move(source=""), None), (Count(number=3), 3)):
        function = contract_of(message).key
        assert function is not None
        assert function(message) == key


def test_without_a_key_there_is_no_order() -> None:
    assert contract_of(PlaceOrder).key is None


@pytest.mark.parametrize("key", ["nothing", "", 3])
def test_key_that_names_no_field_is_refused(key: Any) -> None:
    with pytest.raises(ConfigurationError, match="names no field of it"):

        class _Move(Command, name="orders.move", key=key):
            number: int


def test_only_commands_have_a_key() -> None:
    with pytest.raises(ConfigurationError, match="only commands declare key="):

        class _Moved(Event, name="orders.moved", key="number"):
            number: int


def test_slot_is_that_of_the_key_or_of_the_one_given() -> None:
    class Move(Command, name="orders.move", key=lambda move: move.source or None):
        source: str

    assert slot_among(Move(source="a")) == slot_of("a")
    assert slot_among(Move(source="a"), "b") == slot_among(Move(source=""), "b") == slot_of("b")
    assert slot_among(Move(source="")) is None
    assert slot_among(OrderPlaced()) is None


def test_key_given_for_a_command_that_declares_none_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="PlaceOrder has no key: declare one"):
        slot_among(PlaceOrder(total_cents=1), "a")
