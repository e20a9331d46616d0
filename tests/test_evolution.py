"""What docs/evolution.md says is compatible, tried: older and newer models read one another's messages."""

import re
from enum import Enum
from pathlib import Path
from typing import Any, Final

import pytest
from pydantic import BaseModel, ConfigDict, Field

from messaging import Command, InvalidPayloadError, RemoteFailure
from messaging.core.codec import decode_failure, decode_model, encode_model, pack_plain
from messaging.core.envelope import CODEC_JSON, CODEC_MSGPACK
from messaging.core.message import contract_of
from messaging.core.topology import routing_key
from messaging.testing import Harness

ROOT: Final = Path(__file__).resolve().parent.parent


class Colour(Enum):
    RED = "red"


class MoreColours(Enum):
    RED = "red"
    BLUE = "blue"


class Plain(Command, name="tests.order"):
    number: int


class WithDefault(Command, name="tests.order"):
    number: int
    note: str = "none"


class WithoutDefault(Command, name="tests.order"):
    number: int
    note: str


class Optional(Command, name="tests.order"):
    number: int | None = None


class Aliased(Command, name="tests.order", codec="json"):
    number: int = Field(alias="orderNumber")


class Coloured(Command, name="tests.order"):
    colour: Colour = Colour.RED


class MoreColoured(Command, name="tests.order"):
    colour: MoreColours


class Line(BaseModel):
    model_config = ConfigDict(extra="forbid")


class NewerLine(Line):
    sku: str = "a"


class Nested(Command, name="tests.order"):
    line: Line


class NewerNested(Command, name="tests.order"):
    line: NewerLine = NewerLine()


@pytest.mark.parametrize(
    ("sent", "reader", "expected"),
    [
        (Plain(number=1), WithDefault, WithDefault(number=1)),
        (WithDefault(number=1, note="x"), Plain, Plain(number=1)),
        (WithoutDefault(number=1, note="x"), WithDefault, WithDefault(number=1, note="x")),
        (Plain(number=1), Optional, Optional(number=1)),
        (Plain(number=1), Aliased, Aliased(orderNumber=1)),
        (Aliased(orderNumber=1), Plain, Plain(number=1)),
        (Coloured(), MoreColoured, MoreColoured(colour=MoreColours.RED)),
        (NewerNested(), Nested, Nested(line=Line())),
    ],
)
def test_compatible_changes_are_readable(sent: Command, reader: type[Command], expected: Command) -> None:
    codec = contract_of(sent).codec

    assert decode_model(reader, encode_model(sent, codec), codec) == expected


@pytest.mark.parametrize(
    ("sent", "reader"),
    [
        (Plain(number=1), WithoutDefault),
        (Optional(), Plain),
        (MoreColoured(colour=MoreColours.BLUE), Coloured),
    ],
)
def test_incompatible_changes_are_refused(sent: Command, reader: type[Command]) -> None:
    with pytest.raises(InvalidPayloadError):
        decode_model(reader, encode_model(sent, CODEC_MSGPACK), CODEC_MSGPACK)


@pytest.mark.parametrize("codec", [CODEC_MSGPACK, CODEC_JSON])
def test_the_codec_of_the_message_counts_and_not_that_of_the_class(codec: int) -> None:
    assert decode_model(Aliased, encode_model(Plain(number=1), codec), codec) == Aliased(orderNumber=1)


class Refused(RemoteFailure, name="tests.refused"):
    number: int
    hint: str = ""


def test_a_failure_may_get_a_field_with_a_default() -> None:
    assert decode_failure(Refused, {"number": 1}).fields() == {"number": 1, "hint": ""}


@pytest.fixture
def page() -> dict[str, Any]:
    """Return the names that the Python block of the page defines."""
    block = re.search(r"^```python\n(.*?)^```", (ROOT / "docs/evolution.md").read_text(), re.MULTILINE | re.DOTALL)
    assert block is not None
    names: dict[str, Any] = {"__name__": "evolution"}
    exec(compile(block[1], "docs/evolution.md", "exec"), names)  # noqa: S102 - the page's own example
    return names


async def test_two_versions_are_handled_side_by_side(page: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    async with Harness(page["orders"]) as harness:
        await harness.send(page["PlaceOrderV1"](total=4.2), sender="shop")
        await harness.send(page["PlaceOrder"](total_cents=7, customer="ada"), sender="shop")
        await harness.settled()

        assert harness.dead("orders") == []

    assert sorted(capsys.readouterr().out.splitlines()) == ["ada 7", "unknown 420"]


def test_versions_share_a_name_and_have_routing_keys_of_their_own(page: dict[str, Any]) -> None:
    first, second = contract_of(page["PlaceOrderV1"]), contract_of(page["PlaceOrder"])

    assert first.name == second.name
    assert routing_key(first.name, first.version) != routing_key(second.name, second.version)


def test_a_renamed_field_is_read_under_both_names(page: dict[str, Any]) -> None:
    old = pack_plain({"total_cents": 7, "buyer": "ada"}, CODEC_MSGPACK)

    assert decode_model(page["PlaceOrder"], old, CODEC_MSGPACK).customer == "ada"
