"""Payload ⇄ bytes: msgpack (default) or JSON. Decoding is bounded and strict; failures are `InvalidPayloadError`.

Payloads are maps of plain values under the names of the fields, never their aliases. What an encoding does not know
(UUID, datetime, Decimal, sets) travels as the text or list that pydantic reads back; JSON, which knows no bytes,
carries them as `{"$bytes": "<base64>"}`.
"""

import base64
import dataclasses
import json
from collections.abc import Callable, Hashable, Mapping
from dataclasses import MISSING
from datetime import date, datetime, time
from decimal import Decimal
from enum import Enum
from functools import cache, partial
from pathlib import PurePath
from typing import Any, Final, TypeVar, cast, get_args, get_type_hints
from uuid import UUID

import msgpack
from pydantic import BaseModel, Field, TypeAdapter, ValidationError, create_model
from pydantic_core import to_jsonable_python
from pydantic_core.core_schema import ErrorType

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
    "pack_plain",
    "plain_of",
    "unpack",
]

PAYLOAD_MAX_BYTES: Final = 4 * 1024 * 1024

F = TypeVar("F", bound=RemoteFailure)
M = TypeVar("M", bound=Message)
V = TypeVar("V")


def encode_model(message: Message, codec: int, *, max_bytes: int = PAYLOAD_MAX_BYTES) -> bytes:
    """Return the payload bytes of a message.

    Raises:
        MessageTooLargeError: the payload is beyond `max_bytes`.
        InvalidPayloadError: a value has no encoding.
    """
    try:
        packed = _ENCODERS[codec](_dumped(message))
    except _UNENCODABLE as error:
        raise _unencodable(error, codec, what=type(message).__name__) from None
    if len(packed) > max_bytes:
        raise _too_large(len(packed), what=type(message).__name__, max_bytes=max_bytes)
    return packed


def encode_value(adapter: TypeAdapter[Any], value: Any, codec: int, *, max_bytes: int = PAYLOAD_MAX_BYTES) -> bytes:
    """Return the bytes of a reply `{"ok": value}`, validated against its declared type first.

    Raises:
        InvalidPayloadError: the value is not of the declared type, or has no encoding.
        MessageTooLargeError: the reply is beyond `max_bytes`.
    """
    try:
        answer = adapter.validate_python(value)
    except ValidationError as error:
        raise InvalidPayloadError(f"the handler's answer does not fit its type: {describe(error)}") from None
    return _pack(lambda: {"ok": adapter.dump_python(answer, by_alias=False)}, codec, what="reply", max_bytes=max_bytes)


def pack_plain(plain: Any, codec: int) -> bytes:
    """Return the bytes of plain values, such as the fault of a reply.

    Raises:
        InvalidPayloadError: a value has no encoding.
    """
    return _pack(lambda: plain, codec, what="reply", max_bytes=PAYLOAD_MAX_BYTES)


def plain_of(value: Any) -> Any:
    """Return a value as plain values that every codec takes: what a receiver would unpack.

    Raises:
        InvalidPayloadError: it has no encoding.
    """
    return unpack(pack_plain(value, CODEC_MSGPACK), CODEC_MSGPACK)


def decode_model(model: type[M], payload: bytes, codec: int) -> M:
    """Return the message that a payload holds; unknown fields are ignored.

    Raises:
        InvalidPayloadError: no valid encoding, or it does not fit the model.
    """
    plain = unpack(payload, codec)
    try:
        # As `model_validate`, less the detour; the arguments are those of `_AS_SENT`.
        found: M = model.__pydantic_validator__.validate_python(plain, by_alias=False, by_name=True, strict=False)
    except (ValidationError, RecursionError):
        return _received(partial(model.model_validate, **_AS_SENT), plain, what=model.__name__)
    return found


def decode_value(adapter: TypeAdapter[Any], plain: Any) -> Any:
    """Return a decoded reply value as its declared type.

    Raises:
        InvalidPayloadError: it does not fit.
    """
    return _received(partial(adapter.validate_python, **_AS_SENT), plain, what="the answer does not fit its type")


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
        field.name: (hints[field.name], _default_of(field))
        for field in dataclasses.fields(failure)  # type: ignore[arg-type]
    }
    return create_model(f"{failure.__name__}Fields", **wanted)


def _default_of(field: dataclasses.Field[Any]) -> Any:
    if field.default_factory is not MISSING:
        return Field(default_factory=field.default_factory)
    return ... if field.default is MISSING else field.default


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
    # RecursionError: JSON nesting; the others are what msgpack and json raise on bad bytes. Their words may quote the
    # payload and are not repeated.
    except (ValueError, TypeError, RecursionError, msgpack.exceptions.UnpackException) as error:
        raise InvalidPayloadError(f"the payload is no valid {_CODEC_NAMES[codec]} ({type(error).__name__})") from None


def describe(error: ValidationError) -> str:
    """Return what is wrong, field by field, without any input value: those are payload and must not reach logs."""
    problems = error.errors(include_input=False, include_url=False, include_context=False)
    shown = [f"{_place(problem)}: {_message(problem)}" for problem in problems]
    more = len(shown) - _SHOWN_PROBLEMS
    return "; ".join(shown[:_SHOWN_PROBLEMS]) + (f"; and {more} more" if more > 0 else "")


_SHOWN_PROBLEMS: Final = 5
# Messages of these types repeat input, or text that a validator of the user's chose, which may hold input. Types that
# pydantic does not know are a user's own as well.
_REPEATING_INPUT: Final = frozenset({"value_error", "assertion_error", "union_tag_invalid", "get_attribute_error"})
_SPOKEN_BY_PYDANTIC: Final = frozenset(get_args(ErrorType)) - _REPEATING_INPUT


def _place(problem: Any) -> str:
    # A key of a map is payload; a field's name and an index are not, and look like these.
    parts = [str(part) if isinstance(part, int) or part.isidentifier() else "…" for part in problem["loc"]]
    return ".".join(parts) or "value"


def _message(problem: Any) -> str:
    return str(problem["msg"] if problem["type"] in _SPOKEN_BY_PYDANTIC else problem["type"])


# Names of fields as `_dumped` wrote them; and lax even where a model is strict, for a UUID travels as text.
_AS_SENT: Final[Mapping[str, Any]] = {"by_alias": False, "by_name": True, "strict": False}


def _dumped(message: Message) -> Any:
    # As `model_dump`, less the detour.
    return message.__pydantic_serializer__.to_python(message, mode="python", by_alias=False)


def _received(validate: Callable[..., V], plain: Any, *, what: str) -> V:
    """Validate; what a model forbids when it is constructed is ignored on receipt, so adding a field is compatible."""
    try:
        try:
            return validate(plain)
        except ValidationError as error:
            unknown = {problem["loc"] for problem in error.errors() if problem["type"] == "extra_forbidden"}
            if not unknown:
                raise
        if isinstance(plain, dict) and all(len(place) == 1 for place in unknown):
            # The usual case, kept apart because extra="ignore" reaches models within that allow extra fields, too.
            return validate({name: value for name, value in plain.items() if (name,) not in unknown})
        return validate(plain, extra="ignore")
    except ValidationError as error:
        raise InvalidPayloadError(f"{what}: {describe(error)}") from None
    except RecursionError:
        raise InvalidPayloadError(f"{what}: nested too deeply") from None


def _pack(make: Callable[[], Any], codec: int, *, what: str, max_bytes: int) -> bytes:
    try:
        packed = _ENCODERS[codec](make())
    except _UNENCODABLE as error:
        raise _unencodable(error, codec, what=what) from None
    if len(packed) > max_bytes:
        raise _too_large(len(packed), what=what, max_bytes=max_bytes)
    return packed


_UNENCODABLE: Final = (TypeError, ValueError, OverflowError, RecursionError)


def _unencodable(error: Exception, codec: int, *, what: str) -> InvalidPayloadError:
    reason = "it holds text that is no Unicode" if isinstance(error, UnicodeError) else str(error)
    return InvalidPayloadError(f"{what} cannot be encoded as {_CODEC_NAMES[codec]}: {reason}")


def _too_large(size_bytes: int, *, what: str, max_bytes: int) -> MessageTooLargeError:
    return MessageTooLargeError(
        f"{what} has {size_bytes} bytes, the cap is {max_bytes}: send a reference to the content instead"
    )


def _plain(value: object) -> Any:
    """Turn what msgpack does not know into what pydantic reads back."""
    if type(value) is UUID:
        # As `str` does, in half the time.
        digits = f"{value.int:032x}"
        return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"
    for kind, turn in _PLAIN:
        if isinstance(value, kind):
            return turn(value)
    return to_jsonable_python(value)


_PLAIN: Final[tuple[tuple[type | tuple[type, ...], Callable[[Any], Any]], ...]] = (
    (UUID, str),
    ((datetime, date, time), lambda value: value.isoformat()),
    (Decimal, str),
    (Enum, lambda value: value.value),
    ((set, frozenset), list),
    (BaseModel, lambda value: value.model_dump(mode="python", by_alias=False)),
    (PurePath, str),
)


def _encode_msgpack(plain: Any) -> bytes:
    # As `packb`, less the detour. A packer of its own each time: its hook may come back here, or let another thread in.
    packed: bytes = msgpack.Packer(default=_plain).pack(plain)
    return packed


def _decode_msgpack(payload: bytes) -> Any:
    return msgpack.unpackb(payload, raw=False, strict_map_key=False, max_ext_len=0)


def _encode_json(plain: Any) -> bytes:
    tagged = to_jsonable_python(_with_tags(plain), by_alias=False, fallback=_plain)
    return json.dumps(tagged, allow_nan=False, separators=(",", ":")).encode()


def _decode_json(payload: bytes) -> Any:
    return json.loads(payload, object_hook=_without_tag, parse_constant=_refuse_constant)


_BYTES_TAG: Final = "$bytes"


def _with_tags(plain: Any) -> Any:
    """Replace bytes by their tag, however deep they lie."""
    if isinstance(plain, bytes | bytearray | memoryview):
        return {_BYTES_TAG: base64.b64encode(plain).decode()}
    if isinstance(plain, Mapping):
        if _BYTES_TAG in plain:
            raise ValueError(f"the key {_BYTES_TAG} is reserved for bytes")
        return {key: _with_tags(value) for key, value in plain.items()}
    if isinstance(plain, list | tuple | set | frozenset):
        return [_with_tags(value) for value in plain]
    return plain


def _without_tag(plain: dict[str, Any]) -> Any:
    tagged = plain.get(_BYTES_TAG)
    if len(plain) != 1 or not isinstance(tagged, str):
        return plain
    return base64.b64decode(tagged, validate=True)


def _refuse_constant(text: str) -> Any:
    """Refuse NaN and the infinities, which Python's reader takes and JSON does not know."""
    raise ValueError(f"{text} is no JSON")


_ENCODERS: Final[dict[int, Callable[[Any], bytes]]] = {CODEC_MSGPACK: _encode_msgpack, CODEC_JSON: _encode_json}
_DECODERS: Final[dict[int, Callable[[bytes], Any]]] = {CODEC_MSGPACK: _decode_msgpack, CODEC_JSON: _decode_json}
_CODEC_NAMES: Final = {CODEC_MSGPACK: "msgpack", CODEC_JSON: "JSON"}
