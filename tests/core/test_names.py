"""The grammar of names: a table of what may and may not stand on the wire."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from messaging.core.names import (
    NAME_MAX,
    check_service,
    is_message_name,
    is_operator,
    is_sender,
    is_service,
    owner_of,
    parse_type,
    type_of,
)
from messaging.errors import ConfigurationError

# Each looks like `orders` or its digits to a person.
OTHER_SCRIPTS = ["оrders", "ordersａ", "órders", "orders١"]  # noqa: RUF001 - confusable letters are the test


@pytest.mark.parametrize("text", ["a", "orders", "orders-eu", "orders_eu", "o1", "a" * 32, "groups", "opsx", "am"])
def test_a_service_is_named_in_plain_lower_case(text: str) -> None:
    assert is_service(text)
    assert is_sender(text)
    assert check_service(text) == text


@pytest.mark.parametrize(
    "text",
    [
        *("", "a" * 33, "Orders", "1orders", "-orders", "_orders", "orders.eu", "orders eu", "orders\n", "orders\x00"),
        *("ops", "event", "group", "amq", "amqp", "amq-x", "ops:orders", "event:orders"),
        *OTHER_SCRIPTS,
    ],
)
def test_what_breaks_the_grammar_or_is_reserved_names_no_service(text: str) -> None:
    assert not is_service(text)
    with pytest.raises(ConfigurationError, match="cannot name a service"):
        check_service(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ops:alice", True),
        ("ops:a-b_c1", True),
        ("ops:", False),
        ("ops:Alice", False),
        ("ops:alice\n", False),
        ("ops:ops:alice", False),
        ("ops:аlice", False),  # noqa: RUF001 - a Cyrillic letter
        (f"ops:{'a' * 33}", False),
        ("alice", False),
        ("op:alice", False),
    ],
)
def test_an_operator_is_a_person_with_a_prefix(text: str, expected: bool) -> None:
    assert is_operator(text) is expected
    assert is_sender(text) is (expected or is_service(text))


@pytest.mark.parametrize(
    "text", ["orders.place_order", "orders.a", "orders.a.b2.c_", "o-x.place", f"orders.{'a' * (NAME_MAX - 7)}"]
)
def test_a_message_is_named_after_its_owner(text: str) -> None:
    assert is_message_name(text)


@pytest.mark.parametrize(
    "text",
    [
        *("", "orders", "orders.", ".place", "orders..place", "orders.place.", "orders.1place", "orders.Place"),
        *("orders.place-order", "orders.place\n", "orders.place order", "orders.*", "orders.#", "orders/place"),
        *("ops.place", "event.place", "group.place", "amq.place", "amqp.place", "ops:alice.place"),
        *(f"{other}.place" for other in OTHER_SCRIPTS),
        f"orders.{'a' * (NAME_MAX - 6)}",
        f"{'a' * 33}.place",
    ],
)
def test_what_breaks_the_grammar_names_no_message(text: str) -> None:
    assert not is_message_name(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("orders.place/1", ("orders.place", 1)),
        ("orders.place/99999", ("orders.place", 99_999)),
        ("orders.place", None),
        ("orders.place/", None),
        ("orders.place/0", None),
        ("orders.place/01", None),
        ("orders.place/1\n", None),
        ("orders.place/+1", None),
        ("orders.place/1_0", None),
        ("orders.place/100000", None),
        ("orders.place/١", None),  # noqa: RUF001 - a digit of another script
        ("orders.place/1/1", None),
        ("orders/1", None),
        ("/1", None),
        ("", None),
    ],
)
def test_a_wire_type_is_a_name_and_a_version(text: str, expected: tuple[str, int] | None) -> None:
    assert parse_type(text) == expected


@given(st.from_regex(r"[a-z][a-z0-9_-]{0,31}(\.[a-z][a-z0-9_]{0,9}){1,3}", fullmatch=True), st.integers(1, 99_999))
def test_a_type_is_read_back_as_it_was_written(name: str, version: int) -> None:
    found = parse_type(type_of(name, version))

    assert found == ((name, version) if is_message_name(name) else None)


@given(st.text(max_size=40))
def test_any_text_is_judged_without_an_error(text: str) -> None:
    assert not is_message_name(text) or is_service(owner_of(text))
    parse_type(text)
    is_sender(text)


@pytest.mark.parametrize(
    ("name", "owner"), [("orders.place", "orders"), ("orders_admin.wipe", "orders_admin"), ("a.b.c", "a")]
)
def test_the_first_label_owns_a_name(name: str, owner: str) -> None:
    assert owner_of(name) == owner
