"""Faults: everything an operator needs, nothing of the payload, never too large, and always possible to make."""

import re
from collections.abc import Callable
from typing import Any
from uuid import UUID

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from messaging.core.codec import pack_plain, unpack
from messaging.core.envelope import CODEC_JSON, CODEC_MSGPACK, Envelope, Kind
from messaging.core.fault import (
    CHAIN_MAX,
    FAULT_MAX_BYTES,
    HISTORY_MAX,
    REASON_MAX_CHARS,
    TRACE_MAX_BYTES,
    Attempt,
    Cause,
    Fault,
)
from messaging.errors import (
    ConfigurationError,
    ConnectionLostError,
    InvalidPayloadError,
    MessagingError,
    Reject,
    RemoteError,
    RemoteFailure,
    RequestTimeoutError,
    RetryLater,
    UnknownMessageError,
)


class OutOfStock(RemoteFailure, name="orders.out_of_stock"):
    sku: UUID
    blob: bytes = b""


class Busy(RemoteFailure, name="orders.busy", transient=True):
    pass


class Holding(RemoteFailure, name="orders.holding"):
    what: object


class Payload(BaseModel):
    amount: int


class Mute(Exception):
    def __str__(self) -> str:
        raise RuntimeError("I do not speak")


HISTORY = (Attempt(at_ms=1, error="ValueError"), Attempt(at_ms=2, error="OSError"))
LONG_HISTORY = tuple(Attempt(at_ms=2**41, error="E" * 200) for _ in range(HISTORY_MAX))
LONG_CHAIN = (Cause(error="E", reason="😀" * 1_000),) * 5

ENVELOPE = Envelope.first(
    id=UUID(int=7),
    kind=Kind.COMMAND,
    name="orders.place_order",
    version=2,
    sender="users",
    issued_at_ms=1,
    expires_at_ms=2,
    payload=b"",
)


def caught(act: Callable[[], object]) -> Exception:
    try:
        act()
    except Exception as error:  # noqa: BLE001 - the test wants it with its traceback
        return error
    raise AssertionError("it did not raise")


def divide() -> object:
    return 1 / 0


def validate() -> object:
    return Payload.model_validate({"amount": "my secret"})


def wrap() -> object:
    try:
        return divide()
    except ZeroDivisionError as error:
        raise KeyError("wrapped") from error


def hide() -> object:
    try:
        return divide()
    except ZeroDivisionError:
        raise KeyError("hidden") from None


def stumble() -> object:
    try:
        return divide()
    except ZeroDivisionError:
        return dict[str, int]()["missing"]


def gather() -> object:
    raise ExceptionGroup("two failed", [caught(wrap), OSError("second")])


def nest(depth: int) -> BaseException:
    error: BaseException = ValueError("0")
    for level in range(depth):
        outer = ValueError(str(level + 1))
        outer.__cause__ = error
        error = outer
    return error


@pytest.mark.parametrize(
    ("error", "name", "reason"),
    [
        (ValueError("bad"), "ValueError", "bad"),
        (ValueError(), "ValueError", "ValueError"),
        (Reject("no"), "Reject", "no"),
        (Mute(), f"{Mute.__module__}.Mute", "<exception str() failed>"),
        (ValueError("\ud800"), "ValueError", "?"),
        (Busy(), "orders.busy", "orders.busy()"),
        (ValueError("x" * 2_000), "ValueError", "x" * REASON_MAX_CHARS),
    ],
    ids=["own words", "no words", "ours", "mute", "no unicode", "registered", "long"],
)
def test_a_fault_names_the_error_and_repeats_its_words(error: Exception, name: str, reason: str) -> None:
    fault = Fault.of(error)

    assert (fault.error, fault.reason) == (name, reason)


@pytest.mark.parametrize(
    ("error", "permanent"),
    [
        (ValueError("foreign: nothing is known"), False),
        (ConnectionResetError("foreign"), False),
        (Reject("no"), True),
        (InvalidPayloadError("schema"), True),
        (caught(validate), True),
        (OutOfStock(sku=UUID(int=1)), True),
        (Busy(), False),
        (RetryLater(5.0), False),
        (UnknownMessageError("rolling deploy"), False),
        (ConnectionLostError("broker"), False),
        (RequestTimeoutError("late", message_id=UUID(int=1)), False),
        (RemoteError("over there", fault=Fault(error="E", reason="r")), False),
        (RemoteError("over there", fault=Fault(error="E", reason="r", permanent=True)), True),
        (ConfigurationError("a bug"), True),
        (MessagingError("ours"), True),
    ],
)
def test_what_can_never_succeed_is_permanent(error: Exception, permanent: bool) -> None:
    assert Fault.of(error).permanent is permanent


@pytest.mark.parametrize("declared", [True, False])
def test_what_the_policy_declares_wins(declared: bool) -> None:
    assert Fault.of(Reject("no"), permanent=declared).permanent is declared


def test_a_wish_for_a_later_retry_is_kept() -> None:
    assert Fault.of(RetryLater(5.0, "busy")).retry_after_s == 5.0
    assert Fault.of(ValueError()).retry_after_s is None


def test_a_fault_tells_which_message_failed() -> None:
    fault = Fault.of(ValueError("x"), ENVELOPE)

    assert (fault.message_name, fault.message_version, fault.message_id) == (
        "orders.place_order",
        2,
        str(UUID(int=7)),
    )
    assert Fault.of(ValueError("x")).message_id == ""


def test_a_validation_error_is_told_without_its_input() -> None:
    fault = Fault.of(caught(validate))

    assert fault.reason == "amount: Input should be a valid integer, unable to parse string as an integer"
    assert "secret" not in str(fault.to_map())


@pytest.mark.parametrize(
    ("act", "chain"),
    [
        (divide, []),
        (wrap, [("ZeroDivisionError", "division by zero")]),
        (hide, []),
        (stumble, [("ZeroDivisionError", "division by zero")]),
        (gather, [("KeyError", "'wrapped'"), ("ZeroDivisionError", "division by zero"), ("OSError", "second")]),
    ],
)
def test_the_chain_tells_causes_nearest_first_and_members_of_groups(
    act: Callable[[], object], chain: list[tuple[str, str]]
) -> None:
    assert [(cause.error, cause.reason) for cause in Fault.of(caught(act)).chain] == chain


def test_a_chain_ends() -> None:
    looped = ValueError("looped")
    second = ValueError("second")
    looped.__cause__, second.__cause__ = second, looped

    assert [cause.reason for cause in Fault.of(looped).chain] == ["second"]
    assert len(Fault.of(nest(50)).chain) == CHAIN_MAX
    assert len(Fault.of(ExceptionGroup("many", [ValueError(str(n)) for n in range(50)])).chain) == CHAIN_MAX


def test_words_of_causes_are_short() -> None:
    error = ValueError("outer")
    error.__cause__ = ValueError("x" * 1_000)

    assert Fault.of(error).chain == (Cause(error="ValueError", reason="x" * 200),)


def test_the_trace_shows_places_and_no_source() -> None:
    trace = Fault.of(caught(wrap)).trace

    assert re.search(r"^test_fault\.py:\d+ in wrap$", trace, re.MULTILINE)
    assert "KeyError" not in trace
    assert "/" not in trace


def test_a_long_trace_is_cut_from_the_middle() -> None:
    def descend(level: int) -> object:
        return divide() if level == 0 else descend(level - 1)

    trace = Fault.of(caught(lambda: descend(600))).trace

    assert len(trace.encode()) <= TRACE_MAX_BYTES
    assert "in <lambda>" in trace
    assert "… cut …" in trace
    assert trace.endswith("in divide")


def test_the_fingerprint_is_that_of_error_and_place() -> None:
    first, second = Fault.of(caught(divide)), Fault.of(caught(divide))

    assert first.fingerprint == second.fingerprint
    assert re.fullmatch(r"[0-9a-f]{16}", first.fingerprint)
    assert Fault.of(caught(wrap)).fingerprint != first.fingerprint
    assert Fault.of(caught(hide)).fingerprint != Fault.of(caught(wrap)).fingerprint


def test_the_fingerprint_ignores_frames_of_libraries() -> None:
    def through_pydantic() -> object:
        return Payload.model_validate({"amount": "x"})

    def straight() -> object:
        raise caught(through_pydantic)

    assert Fault.of(caught(straight)).fingerprint == Fault.of(caught(through_pydantic)).fingerprint


def test_an_error_raised_in_a_library_alone_has_a_fingerprint_too() -> None:
    namespace: dict[str, Any] = {}
    exec(compile("def fail():\n    raise ValueError", "/site-packages/lib/x.py", "exec"), namespace)  # noqa: S102

    error = caught(namespace["fail"])
    trace = error.__traceback__
    error.__traceback__ = None if trace is None else trace.tb_next

    assert Fault.of(error).fingerprint != Fault.of(ValueError()).fingerprint


def test_fields_of_a_domain_failure_are_plain() -> None:
    assert Fault.of(OutOfStock(sku=UUID(int=1), blob=b"\xff")).fields == {"sku": str(UUID(int=1)), "blob": b"\xff"}


@pytest.mark.parametrize("what", [object(), float("nan"), {"$bytes": "AA=="}], ids=["object", "nan", "reserved key"])
def test_fields_that_not_every_codec_takes_are_left_out(what: object) -> None:
    fault = Fault.of(Holding(what=what))

    assert fault.fields == {}
    assert fault.error == "orders.holding"


@pytest.mark.parametrize("codec", [CODEC_MSGPACK, CODEC_JSON])
def test_a_fault_comes_back_as_it_went(codec: int) -> None:
    fault = Fault.of(caught(gather), ENVELOPE).marked(
        fields={"blob": b"\xff"},
        service="orders",
        attempts=3,
        history=(Attempt(at_ms=1, error="ValueError"), Attempt(at_ms=5, error="KeyError")),
        replays=1,
        last_failed_at_ms=5,
    )

    found = Fault.from_map(unpack(pack_plain(fault.to_map(), codec), codec))

    assert found == fault
    assert fault.to_map()["format"] == 1


@given(
    st.text(max_size=REASON_MAX_CHARS),
    st.text(max_size=2 * TRACE_MAX_BYTES),
    st.dictionaries(st.text(max_size=5), st.text(max_size=20_000), max_size=3),
    st.lists(st.builds(Cause, error=st.text(max_size=200), reason=st.text(max_size=1000)), max_size=CHAIN_MAX),
)
def test_a_fault_stays_within_its_budget(reason: str, trace: str, fields: dict[str, str], chain: list[Cause]) -> None:
    fault = Fault(error="E", reason=reason, trace=trace, fields=fields, chain=tuple(chain))

    plain = fault.to_map()

    assert len(pack_plain(plain, CODEC_MSGPACK)) <= FAULT_MAX_BYTES
    assert (plain["error"], plain["reason"]) == ("E", reason)


@pytest.mark.parametrize(
    ("values", "kept"),
    [
        ({}, {"trace", "fields", "chain", "history"}),
        ({"trace": "é" * 10_000}, {"trace", "fields", "chain", "history"}),
        ({"fields": {"x": "y" * 17_000}}, {"trace", "chain", "history"}),
        ({"fields": {"x": "y" * 17_000}, "chain": LONG_CHAIN}, {"trace", "history"}),
        ({"fields": {"x": "y" * 17_000}, "chain": LONG_CHAIN[:3], "history": LONG_HISTORY}, {"trace", "history"}),
        ({"history": tuple(Attempt(at_ms=1, error="😀" * 200) for _ in range(HISTORY_MAX))}, {"trace"}),
        ({"fields": {"x": "y" * 16_150}}, {"fields", "chain", "history"}),
    ],
    ids=[
        "all",
        "trace cut",
        "fields",
        "fields and chain",
        "fields and a chain beside a history",
        "all of them",
        "no room for a trace",
    ],
)
def test_what_is_dispensable_goes_first_and_the_trace_takes_what_is_left(
    values: dict[str, Any], kept: set[str]
) -> None:
    common = {
        "trace": "frame\n" * 100,
        "fields": {"a": 1},
        "chain": (Cause(error="E", reason="r"),),
        "history": HISTORY,
    }
    fault = Fault.model_validate({"error": "E", "reason": "r", **common, **values})

    plain = fault.to_map()

    assert {"trace", "fields", "chain", "history"} & plain.keys() == kept
    assert len(msgpack.packb(plain)) <= FAULT_MAX_BYTES


def test_a_later_format_is_read_as_far_as_it_is_known() -> None:
    found = Fault.from_map({"format": 2, "error": "E", "reason": "r", "later": {"x": 1}})

    assert (found.error, found.reason, found.attempts) == ("E", "r", 1)


@pytest.mark.parametrize(
    "plain",
    [
        None,
        [],
        {},
        {"error": "E"},
        {"error": "E", "reason": "x" * (REASON_MAX_CHARS + 1)},
        {"error": "E" * 201, "reason": "r"},
        {"error": "E", "reason": "r", "attempts": -1},
        {"error": "E", "reason": "r", "trace": "x" * (2 * TRACE_MAX_BYTES + 1)},
        {"error": "E", "reason": "r", "chain": [{"error": "E", "reason": "r"}] * (CHAIN_MAX + 1)},
    ],
)
def test_what_is_no_fault_is_refused_without_repeating_it(plain: object) -> None:
    with pytest.raises(InvalidPayloadError, match="no valid fault: "):
        Fault.from_map(plain)


def test_a_caller_sees_the_reason_and_not_the_insides() -> None:
    fault = Fault.of(caught(wrap)).marked(host="box", instance="1f", service="orders", handler="place", history=HISTORY)

    public = fault.public()

    assert (public.trace, public.host, public.instance, public.history) == ("", "", "", ())
    assert (public.error, public.reason, public.service) == (fault.error, fault.reason, "orders")


def test_a_fault_does_not_change() -> None:
    fault = Fault.of(ValueError("x"))

    with pytest.raises(ValidationError, match="frozen"):
        fault.reason = "y"  # type: ignore[misc]
    assert fault.marked(attempts=2).attempts == 2
    assert fault.attempts == 1
