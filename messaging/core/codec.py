"""Payload ⇄ bytes: msgpack (default) or JSON. Decoding is bounded and strict; failures are `InvalidPayloadError`.

msgpack payloads are maps of plain values; what msgpack does not know (UUID, datetime, Decimal, sets) travels as the
text or list that pydantic reads back.
"""

import dataclasses
import json
from collections.abc import Callable, Hashable, Mapping
from dataclasses import MISSING
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from functools import cache
from pathlib import PurePath
from typing import Any, Final, TypeVar, cast, get_type_hints
from uuid import UUID

import msgpack
from pydantic import BaseModel, TypeAdapter, ValidationError, create_model
from pydantic_core import to_jsonable_python

from messaging.core.envelope import CODEC_JSON, CODEC_MSGPACK
from messaging.core.message import Message
from messaging.errors import InvalidPayloadError, MessageTooLargeError, RemoteFailure

__all__ = [
    "PAYLOAD_MAX_BYTES",
    "decode_failure",
    "decode_model",
    "decode_value",
    "encode_model",
    "encode_value",
    "unpack",
]

PAYLOAD_MAX_BYTES: Final = 4 * 1024 * 1024

F = TypeVar("F", bound=RemoteFailure)
M = TypeVar("M", bound=Message)


def encode_model(message: Message, codec: int, *, max_bytes: int = PAYLOAD_MAX_BYTES) -> bytes:
    """Return the payload bytes of a message.

    Raises:
        MessageTooLargeError: the payload is beyond `max_bytes`.
        InvalidPayloadError: a value has no encoding.
    """
    return _pack(message.model_dump(mode="python"), codec, what=type(message).__name__, max_bytes=max_bytes)


def encode_value(adapter: TypeAdapter[Any], value: Any, codec: int, *, max_bytes: int = PAYLOAD_MAX_BYTES) -> bytes:
    """Return the bytes of a reply `{"ok": value}`, validated against its declared type first.

    Raises:
        InvalidPayloadError: the value is not of the declared type, or has no encoding.
        MessageTooLargeError: the reply is beyond `max_bytes`.
    """
    try:
        plain = adapter.dump_python(adapter.validate_python(value), mode="python")
    except ValidationError as error:
        raise InvalidPayloadError(f"the handler's answer does not fit its type: {describe(error)}") from None
    return _pack({"ok": plain}, codec, what="reply", max_bytes=max_bytes)


def pack_plain(plain: Any, codec: int) -> bytes:
    """Return the bytes of plain values, such as the fault of a reply.

    Raises:
        InvalidPayloadError: a value has no encoding.
    """
    return _pack(plain, codec, what="reply", max_bytes=PAYLOAD_MAX_BYTES)


def decode_model(model: type[M], payload: bytes, codec: int) -> M:
    """Return the message that a payload holds; unknown fields are ignored.

    Raises:
        InvalidPayloadError: no valid encoding, or it does not fit the model.
    """
    plain = unpack(payload, codec)
    try:
        return model.model_validate(plain, extra="ignore")
    except ValidationError as error:
        raise InvalidPayloadError(f"{model.__name__}: {describe(error)}") from None
    except RecursionError:
        raise InvalidPayloadError(f"{model.__name__}: the payload is nested too deeply") from None


def decode_value(adapter: TypeAdapter[Any], plain: Any) -> Any:
    """Return a decoded reply value as its declared type.

    Raises:
        InvalidPayloadError: it does not fit.
    """
    try:
        return adapter.validate_python(plain, extra="ignore")
    except ValidationError as error:
        raise InvalidPayloadError(f"the answer does not fit its type: {describe(error)}") from None


def decode_failure(failure: type[F], values: Mapping[str, Any]) -> F:
    """Return a declared domain failure with its fields, as a fault brought them.

    Raises:
        InvalidPayloadError: the fields do not fit the class.
    """
    try:
        fields = _fields_model(cast("Hashable", failure)).model_validate(dict(values))
    except ValidationError as error:
        raise InvalidPayloadError(f"{failure.failure_name}: {describe(error)}") from None
    return failure(**{name: getattr(fields, name) for name in type(fields).model_fields})


@cache
def _fields_model(failure: type[RemoteFailure]) -> type[BaseModel]:
    hints = get_type_hints(failure)
    wanted: dict[str, Any] = {
        field.name: (hints[field.name], ... if field.default is MISSING else field.default)
        for field in dataclasses.fields(failure)  # type: ignore[arg-type]
    }
    return create_model(f"{failure.__name__}Fields", **wanted)


def unpack(payload: bytes, codec: int) -> Any:
    """Return the plain values of a payload.

    Raises:
        InvalidPayloadError: no valid encoding, or a codec that is not known here.
    """
    decode = _DECODERS.get(codec)
    if decode is None:
        raise InvalidPayloadError(f"codec {codec} is not known here; known are msgpack (0) and JSON (1)")
    try:
        return decode(payload)
    # RecursionError: JSON nesting; the others are what msgpack and json raise on bad bytes.
    except (ValueError, TypeError, RecursionError, msgpack.exceptions.UnpackException) as error:
        raise InvalidPayloadError(f"the payload is no valid {_CODEC_NAMES[codec]} ({type(error).__name__})") from None


def describe(error: ValidationError) -> str:
    """Return what is wrong, field by field, without any input value: those are payload and must not reach logs."""
    problems = error.errors(include_input=False, include_url=False, include_context=False)
    shown = [f"{_place(problem)}: {_message(problem)}" for problem in problems]
    more = len(shown) - _SHOWN_PROBLEMS
    return "; ".join(shown[:_SHOWN_PROBLEMS]) + (f"; and {more} more" if more > 0 else "")


_SHOWN_PROBLEMS: Final = 5
# Messages of these types repeat text that a validator of the user's chose, which may hold input.
_SPOKEN_BY_USERS: Final = frozenset({"value_error", "assertion_error"})


def _place(problem: Any) -> str:
    # A key of a map is payload; a field's name and an index are not, and look like these.
    parts = [str(part) if isinstance(part, int) or part.isidentifier() else "…" for part in problem["loc"]]
    return ".".join(parts) or "value"


def _message(problem: Any) -> str:
    return str(problem["type"] if problem["type"] in _SPOKEN_BY_USERS else problem["msg"])


def _pack(plain: Any, codec: int, *, what: str, max_bytes: int) -> bytes:
    try:
        packed: bytes = _ENCODERS[codec](plain)
    except (TypeError, ValueError, OverflowError) as error:
        raise InvalidPayloadError(f"{what} cannot be encoded as {_CODEC_NAMES[codec]}: {error}") from None
    if len(packed) > max_bytes:
        raise MessageTooLargeError(
            f"{what} has {len(packed)} bytes, the cap is {max_bytes}: send a reference to the content instead"
        )
    return packed


def _plain(value: object) -> Any:
    """Turn what msgpack does not know into what pydantic reads back."""
    for kind, turn in _PLAIN:
        if isinstance(value, kind):
            return turn(value)
    return to_jsonable_python(value)


_PLAIN: Final[tuple[tuple[type | tuple[type, ...], Callable[[Any], Any]], ...]] = (
    (UUID, str),
    ((datetime, date, time), lambda value: value.isoformat()),
    (Decimal, str),
    (timedelta, lambda value: value.total_seconds()),
    (Enum, lambda value: value.value),
    ((set, frozenset), list),
    (BaseModel, lambda value: value.model_dump(mode="python")),
    (PurePath, str),
)


def _encode_msgpack(plain: Any) -> bytes:
    packed: bytes = msgpack.packb(plain, default=_plain, use_bin_type=True)
    return packed


def _decode_msgpack(payload: bytes) -> Any:
    return msgpack.unpackb(payload, raw=False, strict_map_key=False, max_ext_len=0)


def _encode_json(plain: Any) -> bytes:
    return json.dumps(to_jsonable_python(plain, bytes_mode="base64"), allow_nan=False, separators=(",", ":")).encode()


_ENCODERS: Final[dict[int, Callable[[Any], bytes]]] = {CODEC_MSGPACK: _encode_msgpack, CODEC_JSON: _encode_json}
_DECODERS: Final[dict[int, Callable[[bytes], Any]]] = {CODEC_MSGPACK: _decode_msgpack, CODEC_JSON: json.loads}
_CODEC_NAMES: Final = {CODEC_MSGPACK: "msgpack", CODEC_JSON: "JSON"}
