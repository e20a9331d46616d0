"""Payload ⇄ bytes: what goes comes back, in either encoding; what is wrong is one error and repeats no payload."""

import json
import math
import re
from contextlib import suppress
from dataclasses import field
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum, IntEnum
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal, NamedTuple
from uuid import UUID

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import (
    AliasChoices,
    BaseModel,
    ConfigDict,
    Field,
    IPvAnyAddress,
    TypeAdapter,
    ValidationError,
    field_serializer,
    field_validator,
)
from pydantic_core import PydanticCustomError

from messaging.core.codec import (
    PAYLOAD_MAX_BYTES,
    decode_failure,
    decode_model,
    decode_value,
    describe,
    encode_model,
    encode_value,
    pack_plain,
    plain_of,
    unpack,
)
from messaging.core.envelope import CODEC_JSON, CODEC_MSGPACK, CODEC_PROTOBUF, CODEC_RAW
from messaging.core.message import Command, Request
from messaging.errors import InvalidPayloadError, MessageTooLargeError, RemoteFailure

CODECS = pytest.mark.parametrize("codec", [CODEC_MSGPACK, CODEC_JSON], ids=["msgpack", "json"])


class Colour(Enum):
    RED = "red"
    GREEN = "green"


class Size(IntEnum):
    SMALL = 1
    LARGE = 2


class Point(NamedTuple):
    x: int
    y: int


class Line(BaseModel):
    sku: str
    count: int
    price: Decimal
    blob: bytes = b""
    inner: "Line | None" = None


class Everything(Command, name="tests.everything"):
    text: str
    number: int
    amount: float
    flag: bool
    nothing: None = None
    ident: UUID
    at: datetime
    on: date
    clock: time
    span: timedelta
    price: Decimal
    blob: bytes
    labels: frozenset[str]
    colour: Colour
    size: Size
    point: Point
    place: PurePosixPath
    lines: tuple[Line, ...]
    by_id: dict[UUID, list[bytes]]
    anything: Any = None


ZONES = st.sampled_from([None, UTC, timezone(timedelta(hours=5, minutes=30)), timezone(-timedelta(hours=11))])
TEXT = st.text(max_size=20)
LINES = st.recursive(
    st.builds(
        Line,
        sku=TEXT,
        count=st.integers(-(2**63), 2**64 - 1),
        price=st.decimals(allow_nan=False, allow_infinity=False),
        blob=st.binary(max_size=30),
        inner=st.none(),
    ),
    lambda inner: st.builds(Line, sku=TEXT, count=st.just(1), price=st.just(Decimal(1)), inner=inner),
    max_leaves=3,
)
PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    # JSON keeps a lone key of bytes for itself.
    | TEXT
    | st.binary(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT.filter(lambda key: key != "$bytes"), inner),
    max_leaves=8,
)
EVERYTHING = st.builds(
    Everything,
    text=TEXT,
    number=st.integers(-(2**63), 2**64 - 1),
    amount=st.floats(allow_nan=False, allow_infinity=False),
    flag=st.booleans(),
    ident=st.uuids(),
    at=st.datetimes(timezones=ZONES),
    on=st.dates(),
    clock=st.times(),
    span=st.timedeltas(),
    price=st.decimals(allow_nan=False, allow_infinity=False),
    blob=st.binary(max_size=50),
    labels=st.frozensets(TEXT, max_size=4),
    colour=st.sampled_from(Colour),
    size=st.sampled_from(Size),
    point=st.builds(Point, st.integers(0, 9), st.integers(0, 9)),
    place=st.just(PurePosixPath("/tmp/x")),  # noqa: S108 - a name, no file
    lines=st.lists(LINES, max_size=3).map(tuple),
    by_id=st.dictionaries(st.uuids(), st.lists(st.binary(max_size=5), max_size=2), max_size=2),
    anything=PLAIN,
)


@CODECS
@given(message=EVERYTHING)
def test_what_goes_comes_back(codec: int, message: Everything) -> None:
    payload = encode_model(message, codec)

    assert decode_model(Everything, payload, codec) == message


@CODECS
@given(value=PLAIN)
def test_plain_values_come_back(codec: int, value: Any) -> None:
    assert unpack(pack_plain(value, codec), codec) == value


class Tick(Command, name="tests.tick"):
    at: datetime


@CODECS
@pytest.mark.parametrize("at", [datetime(2026, 1, 1), datetime(2026, 1, 1, tzinfo=UTC)])
def test_a_time_keeps_whether_it_has_a_zone(codec: int, at: datetime) -> None:
    found = decode_model(Tick, encode_model(Tick(at=at), codec), codec).at

    assert found == at
    assert found.utcoffset() == at.utcoffset()


class Loose(Command, name="tests.loose"):
    value: Any


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC), "2026-01-02T03:04:05.000006+00:00"),
        (date(2026, 1, 2), "2026-01-02"),
        (Decimal("1.10"), "1.10"),
        (Colour.RED, "red"),
        (Size.LARGE, 2),
        ((1, 2), [1, 2]),
        (Line(sku="a", count=1, price=Decimal(2)), {"sku": "a", "count": 1, "price": "2", "blob": b"", "inner": None}),
        (b"\xff", b"\xff"),
        (TypeAdapter(IPvAnyAddress).validate_python("127.0.0.1"), "127.0.0.1"),
    ],
)
def test_what_msgpack_does_not_know_travels_as_text_or_list(value: Any, plain: Any) -> None:
    assert unpack(encode_model(Loose(value=value), CODEC_MSGPACK), CODEC_MSGPACK) == {"value": plain}
    assert plain_of(value) == plain


class Blob(Command, name="tests.blob", codec="json"):
    blob: bytes


def test_json_carries_bytes_under_a_tag() -> None:
    payload = encode_model(Blob(blob=b"\xff\x00"), CODEC_JSON)

    assert json.loads(payload) == {"blob": {"$bytes": "/wA="}}
    assert decode_model(Blob, payload, CODEC_JSON) == Blob(blob=b"\xff\x00")


@pytest.mark.parametrize(
    "plain", [{"$bytes": 1}, {"$bytes": "AA==", "more": 1}, {"$bytes": ["AA=="]}], ids=["number", "company", "list"]
)
def test_json_that_only_looks_like_a_tag_stays_what_it_is(plain: Any) -> None:
    assert unpack(json.dumps(plain).encode(), CODEC_JSON) == plain


@pytest.mark.parametrize("payload", [b'{"$bytes": "A"}', b'{"$bytes": "A\\u00e9=="}', b'{"$bytes": "AA==\\n"}'])
def test_a_tag_with_anything_but_base64_is_refused(payload: bytes) -> None:
    with pytest.raises(InvalidPayloadError, match="no valid JSON"):
        unpack(payload, CODEC_JSON)


def test_a_map_that_would_come_back_as_bytes_is_refused_at_the_sender() -> None:
    with pytest.raises(InvalidPayloadError, match=re.escape("the key $bytes is reserved")):
        encode_model(Loose(value={"$bytes": "AA=="}), CODEC_JSON)


class Renamed(BaseModel):
    total: int = Field(alias="totalCents")


class Aliased(Command, name="tests.aliased"):
    model_config = ConfigDict(serialize_by_alias=True)

    order: int = Field(validation_alias=AliasChoices("orderId", "order_id"), serialization_alias="ORDER")
    nested: Renamed


@CODECS
def test_the_wire_has_the_names_of_fields_and_no_aliases(codec: int) -> None:
    message = Aliased.model_validate({"orderId": 1, "nested": {"totalCents": 2}})

    payload = encode_model(message, codec)

    assert unpack(payload, codec) == {"order": 1, "nested": {"total": 2}}
    assert decode_model(Aliased, payload, codec) == message


class Strict(Command, name="tests.strict"):
    model_config = ConfigDict(strict=True)

    ident: UUID
    span: Annotated[timedelta, Field(strict=True)]


@CODECS
def test_a_strict_model_is_readable_although_a_uuid_travels_as_text(codec: int) -> None:
    message = Strict(ident=UUID(int=1), span=timedelta(microseconds=1))

    assert decode_model(Strict, encode_model(message, codec), codec) == message


class Open(BaseModel):
    model_config = ConfigDict(extra="allow")


class Shut(BaseModel):
    model_config = ConfigDict(extra="forbid")

    one: int = 1


class Order(Command, name="tests.order"):
    ident: int
    note: str = "none"
    extra: Open = Open()
    shut: Shut = Shut()


@CODECS
@pytest.mark.parametrize(
    ("plain", "expected"),
    [
        ({"ident": 1}, Order(ident=1)),
        ({"ident": 1, "later": [1]}, Order(ident=1)),
        ({"ident": 1, "extra": {"kept": 1}}, Order(ident=1, extra=Open.model_validate({"kept": 1}))),
        ({"ident": 1, "extra": {"kept": 1}, "later": 1}, Order(ident=1, extra=Open.model_validate({"kept": 1}))),
        ({"ident": 1, "shut": {"one": 2, "later": 1}}, Order(ident=1, shut=Shut(one=2))),
    ],
    ids=["older", "newer", "allowed", "newer and allowed", "newer within"],
)
def test_an_unknown_field_is_ignored_on_receipt(codec: int, plain: Any, expected: Order) -> None:
    assert decode_model(Order, pack_plain(plain, codec), codec) == expected


@pytest.mark.parametrize(
    ("payload", "words"),
    [
        ({}, "Order: ident: Field required"),
        ({"later": 1}, "Order: ident: Field required"),
        ({"ident": "secret"}, "Order: ident: Input should be a valid integer"),
        ([1], "Order: value: Input should be a valid dictionary or instance of Order"),
        (None, "Order: value: Input should be"),
        ({"ident": 1, "note": 2, "shut": {"one": "x"}}, "Order: note: Input should be a valid string; shut.one: "),
        ({"ident": 1, "shut": {"one": "x", "later": 1}}, "Order: shut.one: Input should be a valid integer"),
        ({"ident": math.nan}, "Order: ident: Input should be a finite number"),
    ],
)
def test_a_payload_that_does_not_fit_is_described_without_its_values(payload: Any, words: str) -> None:
    with pytest.raises(InvalidPayloadError, match=re.escape(words)) as caught:
        decode_model(Order, pack_plain(payload, CODEC_MSGPACK), CODEC_MSGPACK)

    assert "secret" not in str(caught.value)


class Measure(Command, name="tests.measure"):
    amount: float


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_number_that_is_none_is_refused_on_receipt(value: float) -> None:
    with pytest.raises(InvalidPayloadError, match="finite"):
        decode_model(Measure, msgpack.packb({"amount": value}), CODEC_MSGPACK)


@pytest.mark.parametrize("word", ["NaN", "Infinity", "-Infinity"])
def test_words_that_are_no_json_are_refused(word: str) -> None:
    with pytest.raises(InvalidPayloadError, match="no valid JSON"):
        unpack(f'{{"amount": {word}}}'.encode(), CODEC_JSON)
    with pytest.raises(InvalidPayloadError, match="cannot be encoded as JSON"):
        encode_model(Loose(value=float(word.replace("Infinity", "inf"))), CODEC_JSON)


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


def circle() -> list[Any]:
    value: list[Any] = []
    value.append(value)
    return value


class Unserializable(Command, name="tests.unserializable"):
    value: int

    @field_serializer("value")
    def refuse(self, _: int) -> int:
        raise ValueError("not today")


@CODECS
@pytest.mark.parametrize(
    "message",
    [
        Loose(value=object()),
        Loose(value=nested(100_000)),
        Loose(value=circle()),
        Unserializable(value=1),
    ],
    ids=["object", "deep", "circle", "serializer"],
)
def test_a_value_without_encoding_is_refused_at_the_sender(codec: int, message: Command) -> None:
    with pytest.raises(InvalidPayloadError, match=f"{type(message).__name__} cannot be encoded"):
        encode_model(message, codec)


@pytest.mark.parametrize(
    ("value", "words"),
    [(2**64, "Integer value out of range"), ("\ud800", "it holds text that is no Unicode")],
)
def test_what_only_json_can_write_is_refused_by_msgpack(value: Any, words: str) -> None:
    message = Loose(value=value)

    with pytest.raises(InvalidPayloadError, match=words) as caught:
        encode_model(message, CODEC_MSGPACK)

    assert str(value) not in str(caught.value)
    assert decode_model(Loose, encode_model(message, CODEC_JSON), CODEC_JSON) == message


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\xc1",
        b"\x81",
        b"\x80\x80",
        b"\xa1\xff",
        b"\xc7\x01\x05x",
        b"\xd6\xff\x00\x00\x00\x00",
        b"\xdd\xff\xff\xff\xff",
        b"\xdf\xff\xff\xff\xff",
        b"\xdb\xff\xff\xff\xffx",
        b"\x81\x91\x01\x01",
        b"\x91" * 5_000 + b"\xc0",
    ],
    ids=[
        *("empty", "unused", "short", "trailing", "no utf-8", "extension", "timestamp"),
        *("4 G items", "4 G pairs", "4 GB text", "list as key", "deep"),
    ],
)
def test_bad_msgpack_is_one_error(payload: bytes) -> None:
    with pytest.raises(InvalidPayloadError, match="no valid msgpack"):
        unpack(payload, CODEC_MSGPACK)


@pytest.mark.parametrize(
    "payload",
    [b"", b"{", b'{"a": 1} x', b"\xff", b'{"a": "\xff"}', b"[" * 100_000, b"1" * 5_000, b"{'a': 1}"],
    ids=["empty", "short", "trailing", "no utf-8", "no utf-8 text", "deep", "long number", "quotes"],
)
def test_bad_json_is_one_error(payload: bytes) -> None:
    with pytest.raises(InvalidPayloadError, match="no valid JSON"):
        unpack(payload, CODEC_JSON)


@CODECS
@given(payload=st.binary(max_size=60))
def test_any_bytes_are_read_or_refused(codec: int, payload: bytes) -> None:
    with suppress(InvalidPayloadError):
        decode_model(Order, payload, codec)


@pytest.mark.parametrize("codec", [CODEC_PROTOBUF, CODEC_RAW, 99])
def test_an_unknown_codec_is_named(codec: int) -> None:
    with pytest.raises(InvalidPayloadError, match=f"codec {codec} is not known here"):
        unpack(b"", codec)


@CODECS
def test_a_payload_beyond_the_cap_is_refused_with_both_sizes(codec: int) -> None:
    message = Loose(value="x" * 100)

    with pytest.raises(MessageTooLargeError, match=r"Loose has \d+ bytes, the cap is 100"):
        encode_model(message, codec, max_bytes=100)
    assert len(encode_model(message, codec, max_bytes=200)) <= 200


def test_the_cap_is_four_mebibytes() -> None:
    with pytest.raises(MessageTooLargeError):
        encode_model(Loose(value=b"x" * PAYLOAD_MAX_BYTES), CODEC_MSGPACK)


class Tree(BaseModel):
    child: "Tree | None" = None


class Grow(Command, name="tests.grow"):
    tree: Tree


def test_a_payload_deeper_than_its_model_can_follow_is_one_error() -> None:
    plain: Any = None
    for _ in range(400):
        plain = {"child": plain}

    with pytest.raises(InvalidPayloadError, match="Grow: "):
        decode_model(Grow, pack_plain({"tree": plain}, CODEC_MSGPACK), CODEC_MSGPACK)


def depth(value: Any) -> int:
    return 1 + max((depth(inner) for inner in value), default=0)


class Walked(Command, name="tests.walked"):
    value: Any

    @field_validator("value")
    @classmethod
    def walk(cls, value: Any) -> Any:
        depth(value)
        return value


def test_a_payload_deeper_than_a_validator_can_follow_is_one_error() -> None:
    payload = pack_plain({"value": nested(500)}, CODEC_MSGPACK)

    with pytest.raises(InvalidPayloadError, match="Walked: nested too deeply"):
        decode_model(Walked, payload, CODEC_MSGPACK)


class Answer(BaseModel):
    status: str
    blob: bytes = b""
    ident: UUID | None = None


class Ask(Request[Answer], name="tests.ask"):
    pass


ANSWER = TypeAdapter(Answer)


@CODECS
@given(answer=st.builds(Answer, status=TEXT, blob=st.binary(max_size=20), ident=st.none() | st.uuids()))
def test_an_answer_comes_back(codec: int, answer: Answer) -> None:
    plain = unpack(encode_value(ANSWER, answer, codec), codec)

    assert list(plain) == ["ok"]
    assert decode_value(ANSWER, plain["ok"]) == answer


def test_an_answer_may_be_plain_values_of_the_declared_type() -> None:
    assert unpack(encode_value(ANSWER, {"status": "x"}, CODEC_JSON), CODEC_JSON)["ok"]["status"] == "x"
    assert unpack(encode_value(TypeAdapter(None), None, CODEC_MSGPACK), CODEC_MSGPACK) == {"ok": None}
    assert decode_value(ANSWER, {"status": "x", "later": 1}) == Answer(status="x")


def test_an_answer_that_does_not_fit_is_the_handlers_mistake() -> None:
    with pytest.raises(InvalidPayloadError, match="the handler's answer does not fit its type: status: Field required"):
        encode_value(ANSWER, {}, CODEC_MSGPACK)
    with pytest.raises(InvalidPayloadError, match="the answer does not fit its type: status"):
        decode_value(ANSWER, {"status": 1})
    with pytest.raises(MessageTooLargeError, match="reply has"):
        encode_value(ANSWER, {"status": "x" * 100}, CODEC_MSGPACK, max_bytes=50)


def test_an_answer_that_cannot_be_encoded_is_refused() -> None:
    with pytest.raises(InvalidPayloadError, match="reply cannot be encoded as msgpack"):
        encode_value(TypeAdapter(Any), object(), CODEC_MSGPACK)


class OutOfStock(RemoteFailure, name="tests.out_of_stock"):
    sku: UUID
    left: int = 0
    tags: list[str] = field(default_factory=list)


def test_a_domain_failure_comes_back_with_its_fields() -> None:
    sent = OutOfStock(sku=UUID(int=1), left=2, tags=["a"])

    found = decode_failure(OutOfStock, plain_of(sent.fields()))

    assert found.fields() == sent.fields()


def test_a_domain_failure_of_another_version_takes_defaults_and_ignores_the_rest() -> None:
    found = decode_failure(OutOfStock, {"sku": str(UUID(int=1)), "later": 1})

    assert found.fields() == {"sku": UUID(int=1), "left": 0, "tags": []}


def test_a_domain_failure_whose_fields_do_not_fit_says_so() -> None:
    with pytest.raises(InvalidPayloadError, match=re.escape("tests.out_of_stock: sku: Field required")):
        decode_failure(OutOfStock, {})


class Cat(BaseModel):
    kind: Literal["cat"]


class Dog(BaseModel):
    kind: Literal["dog"]


class Guarded(Command, name="tests.guarded"):
    own: str = ""
    custom: str = ""
    pet: Annotated[Cat | Dog, Field(discriminator="kind")] = Cat(kind="cat")
    scores: dict[str, int] = Field(default_factory=dict)

    @field_validator("own")
    @classmethod
    def check_own(cls, value: str) -> str:
        if value:
            raise ValueError(f"not {value}")
        return value

    @field_validator("custom")
    @classmethod
    def check_custom(cls, value: str) -> str:
        if value:
            raise PydanticCustomError("house_rule", f"not {value}")
        return value


@pytest.mark.parametrize(
    ("plain", "words"),
    [
        ({"own": "secret"}, "own: value_error"),
        ({"custom": "secret"}, "custom: house_rule"),
        ({"pet": {"kind": "secret"}}, "pet: union_tag_invalid"),
        ({"scores": {"my secret": "x"}}, "scores.…: Input should be a valid integer"),
    ],
)
def test_words_that_may_hold_input_are_not_repeated(plain: Any, words: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Guarded.model_validate(plain)

    assert words in describe(caught.value)
    assert "secret" not in describe(caught.value)


def test_many_problems_are_counted() -> None:
    with pytest.raises(ValidationError) as caught:
        TypeAdapter(list[int]).validate_python(["x"] * 8)

    assert describe(caught.value).endswith("unable to parse string as an integer; and 3 more")
    assert "5:" not in describe(caught.value)
