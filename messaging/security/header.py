"""The signed header: who, what, where, when, in clear (docs/spec.md, "Header", "Kinds").

A header is accepted in one form only: exact types, exact lengths, the grammar of names, the relations between fields
that its kind demands, and the shortest encoding, which is checked by encoding again.
"""

import re
from collections.abc import Mapping
from functools import lru_cache
from struct import Struct
from typing import Any, Final

from messaging.core.envelope import Kind
from messaging.core.names import is_operator, is_sender, is_service, owner_of, parse_type
from messaging.core.partition import SLOTS
from messaging.core.topology import Names, dead_routing_key, routing_key
from messaging.core.values import value
from messaging.errors import MalformedError, UnsupportedError
from messaging.security.packed import pack, pack_short, unpack

__all__ = [
    "EXTENSIONS_CRITICAL",
    "LIFETIME_MAX_MS",
    "Address",
    "Header",
    "check_address",
    "check_extensions",
    "is_reply_queue",
    "pack_header",
    "pack_unbound",
    "parse_header",
    "refuse_critical",
]

FIELDS: Final = 17
SKID_BYTES: Final = 8
ID_BYTES: Final = 16
HASH_BYTES: Final = 32
ROUTE_MAX: Final = 255
EXTENSIONS_MAX: Final = 16
ADDRESSES_MAX: Final = 2_048
EXTENSION_KEY_MAX: Final = 32
EXTENSION_VALUE_MAX: Final = 256
LIFETIME_MAX_MS: Final = 30 * 24 * 3_600_000
# Critical extensions that this version knows: none yet. An unknown one means the sender relies on what we would ignore.
EXTENSIONS_CRITICAL: Final[frozenset[str]] = frozenset()

# What msgpack writes before 16 and 32 bytes, and before a time. Smaller times are shorter: those before February 1970.
BIN_16: Final = 0xC410
BIN_32: Final = 0xC420
UINT_64: Final = 0xCF
UINT_32_MAX: Final = (1 << 32) - 1
NILS: Final = 0xC0C0
# mid, iat, exp, corr; no bind and no rto; salt and cmt. Each with its mark before it.
UNBOUND: Final = Struct(">H16sBQBQH16s HH16sH32s")

_OPENING: Final = b"\xdc\x00\x11"
_INSTANCE: Final = re.compile(r"[0-9a-f]{16}", re.ASCII)
_EXTENSION_TYPES: Final = frozenset({str, bytes, int, bool, type(None)})
_TYPED_EXTENSIONS: Final = {"traceparent": str, "tracestate": str, "cause": bytes, "bv": int, "slot": int}


def _shapes() -> frozenset[tuple[object, ...]]:
    # The exact types of all fields, for each kind: which of corr, bind and rto are nil depends on it.
    nil = type(None)
    head = (int, int, str, str, bytes, str, str, str, bytes, int, int)
    tail = (bytes, bytes, dict)
    middles = {
        Kind.COMMAND: ((bytes, nil), (nil,), (nil,)),
        Kind.EVENT: ((bytes, nil), (nil,), (nil,)),
        Kind.REQUEST: ((bytes, nil), (nil,), (str,)),
        Kind.REPLY: ((bytes,), (bytes,), (nil,)),
        Kind.FAULT: ((bytes, nil), (bytes,), (nil,)),
        Kind.REPLAY: ((bytes, nil), (bytes,), (nil,)),
    }
    return frozenset(
        (kind, *head, corr, bind, rto, *tail)
        for kind, (corrs, binds, rtos) in middles.items()
        for corr in corrs
        for bind in binds
        for rto in rtos
    )


_SHAPES: Final = _shapes()


@value
class Address:
    """The fields that stay the same from message to message between two parties: 0 to 7 of the header.

    Attributes:
        suite: Suite of the message.
        kind: Kind.
        typ: Wire type.
        sender: Who signs.
        skid: Id of the signing key.
        aud: Audience.
        ex, rk: Exchange and routing key of the first publish.
    """

    suite: int
    kind: Kind
    typ: str
    sender: str
    skid: bytes
    aud: str
    ex: str
    rk: str

    def pack(self) -> bytes:
        """Return the beginning of every header with these fields."""
        fields = [self.suite, int(self.kind), self.typ, self.sender, self.skid, self.aud, self.ex, self.rk]
        return _OPENING + pack(fields)[1:]


@value
class Header:
    """A parsed header; names as on the wire (docs/spec.md, "Header"), with `name` and `version` taken from `typ`."""

    address: Address
    name: str
    version: int
    mid: bytes
    iat: int
    exp: int
    corr: bytes | None
    bind: bytes | None
    rto: str | None
    salt: bytes
    cmt: bytes
    ext: Mapping[str, Any]


def pack_header(
    opening: bytes,
    *,
    mid: bytes,
    iat: int,
    exp: int,
    corr: bytes | None,
    bind: bytes | None,
    rto: str | None,
    salt: bytes,
    cmt: bytes,
    ext: Mapping[str, Any] | bytes,
) -> bytes:
    """Return the bytes of a header.

    Args:
        opening: What `Address.pack` returned.
        mid: Message id.
        iat: Issue, Unix milliseconds.
        exp: End of life, Unix milliseconds.
        corr: Correlation id.
        bind: Leaf of the message answered, buried or replayed.
        rto: Reply queue.
        salt: 16 fresh bytes.
        cmt: Key commitment.
        ext: Extensions, their keys already in ascending UTF-8 order; or what `packed.pack_short` made of them.
    """
    end = ext if isinstance(ext, bytes) else pack_short(ext)
    if (
        corr is not None
        and bind is None
        and rto is None
        and UINT_32_MAX < iat < exp
        and _are_whole(mid, corr, salt, cmt)
    ):
        # Of commands and events with all they usually have: in one step, as msgpack would write it.
        return pack_unbound(opening, mid, iat, exp, corr, salt, cmt, end)
    return opening + pack_short([mid, iat, exp, corr, bind, rto, salt, cmt])[1:] + end


def pack_unbound(
    opening: bytes, mid: bytes, iat: int, exp: int, corr: bytes, salt: bytes, cmt: bytes, end: bytes
) -> bytes:
    """Return what `pack_header` does, of a header without `bind` and `rto` whose times are beyond `UINT_32_MAX`.

    Nothing is checked here: ids and salt have 16 bytes, the commitment has 32, extensions are packed.
    """
    middle = UNBOUND.pack(BIN_16, mid, UINT_64, iat, UINT_64, exp, BIN_16, corr, NILS, BIN_16, salt, BIN_32, cmt)
    return opening + middle + end


def _are_whole(mid: bytes, corr: bytes, salt: bytes, cmt: bytes) -> bool:
    return len(mid) == len(corr) == len(salt) == ID_BYTES and len(cmt) == HASH_BYTES


def parse_header(raw: bytes, *, names: Names, suites: frozenset[int]) -> Header:
    """Parse and check a header by itself: nothing here depends on keys, clock or policy.

    Args:
        raw: The bytes, at most 4 096.
        names: The namespace whose exchanges and queues the header may name.
        suites: Suites that this receiver accepts.

    Raises:
        MalformedError: Any deviation from the one form.
        UnsupportedError: An unknown critical extension, or a suite that is not allowed.
    """
    fields = _fields(raw)
    suite, number, typ, sender, skid, aud, ex, rk, mid, iat, exp, corr, bind, rto, salt, cmt, ext = fields
    if not 0 <= iat < exp <= iat + LIFETIME_MAX_MS:
        raise MalformedError("the header's life does not end 1 ms to 30 days after its issue")
    address, name, version = _address(suite, number, typ, sender, skid, aud, ex, rk, names.namespace)
    if address.kind is Kind.REQUEST and not is_reply_queue(rto, sender, names):
        raise MalformedError("the header's reply queue is not one of its sender's")
    check_extensions(ext)
    if pack_short(fields) != raw:
        raise MalformedError("the header is not in its one canonical form")
    refuse_critical(ext)
    if suite not in suites:
        raise UnsupportedError(f"suite {suite} is not among those this receiver accepts: {sorted(suites)}")
    return Header(address, name, version, mid, iat, exp, corr, bind, rto, salt, cmt, ext)


def _fields(raw: bytes) -> list[Any]:
    # Seventeen fields of exact types and, where it is fixed, of exact length.
    fields = unpack(
        raw, what="header", array_max=FIELDS, map_max=EXTENSIONS_MAX, text_max=EXTENSION_VALUE_MAX,
        bytes_max=EXTENSION_VALUE_MAX,
    )  # fmt: skip
    if type(fields) is not list or len(fields) != FIELDS:
        raise MalformedError(f"the header is no array of {FIELDS} fields")
    if (fields[1] if type(fields[1]) is int else None, *map(type, fields)) not in _SHAPES:
        raise MalformedError("the header has fields of the wrong type for its kind")
    skid, mid, corr, bind, salt, cmt = fields[4], fields[8], fields[11], fields[12], fields[14], fields[15]
    if not (
        len(skid) == SKID_BYTES
        and len(mid) == len(salt) == ID_BYTES
        and len(cmt) == HASH_BYTES
        and (corr is None or len(corr) == ID_BYTES)
        and (bind is None or len(bind) == HASH_BYTES)
    ):
        raise MalformedError("the header has an id or digest of the wrong length")
    return fields


# A pure function of a few hashable fields that repeat from message to message: two parties, one type. It is asked only
# when their exact types are known, because 1 and True are one key. Errors are not kept, and a flood of made-up names
# can only push entries out.
@lru_cache(maxsize=ADDRESSES_MAX)
def _address(
    suite: int, number: int, typ: str, sender: str, skid: bytes, aud: str, ex: str, rk: str, namespace: str
) -> tuple[Address, str, int]:
    address = Address(suite, Kind(number), typ, sender, skid, aud, ex, rk)
    name, version = check_address(address, Names(namespace))
    return address, name, version


def check_address(address: Address, names: Names) -> tuple[str, int]:
    """Check that the address fields fit each other by the table of kinds; used alike by sender and receiver.

    Returns:
        Message name and version.

    Raises:
        MalformedError: A name breaks the grammar, or a field contradicts another.
    """
    parsed = parse_type(address.typ)
    if parsed is None or not is_sender(address.sender):
        raise MalformedError("the type or the sender breaks the grammar of names")
    name, version = parsed
    if len(address.ex) > ROUTE_MAX or len(address.rk) > ROUTE_MAX:
        raise MalformedError(f"the exchange or the routing key is longer than {ROUTE_MAX}")
    if address.ex != names.exchange_of(address.kind, address.aud):
        raise MalformedError(f"the exchange does not fit a {address.kind.word} of namespace {names.namespace!r}")
    if not _fits_kind(address, name, version, names):
        raise MalformedError(f"sender, audience and routing key do not fit a {address.kind.word} of this type")
    return name, version


def _fits_kind(address: Address, name: str, version: int, names: Names) -> bool:
    owner = owner_of(name)
    match address.kind:
        case Kind.COMMAND | Kind.REQUEST:
            return address.aud == owner and address.rk == routing_key(name, version)
        case Kind.EVENT:
            publishes = address.sender == owner or is_operator(address.sender)
            return publishes and address.aud == f"event:{name}" and address.rk == routing_key(name, version)
        case Kind.REPLY:
            return address.sender == owner and is_sender(address.aud) and is_reply_queue(
                address.rk, address.aud, names
            )  # fmt: skip
        case Kind.FAULT:
            return _fits_fault(address, owner)
        case _:
            return _fits_replay(address, owner, names)


def _fits_fault(address: Address, owner: str) -> bool:
    # A fault comes back to the origin only from the owner of the command; every other one is for the failing service.
    failed_in, aud = address.sender, address.aud
    if not is_service(failed_in):
        return False
    if address.rk == dead_routing_key(failed_in, None):
        return aud == failed_in
    return is_service(aud) and owner == failed_in and address.rk == dead_routing_key(failed_in, aud)


def _fits_replay(address: Address, owner: str, names: Names) -> bool:
    if not is_service(address.aud):
        return False
    if address.rk == names.queue(address.aud, "commands"):
        return address.aud == owner
    return address.rk == names.queue(address.aud, "events")


def is_reply_queue(queue: str, owner: str, names: Names) -> bool:
    """Tell whether a queue is a reply queue of one instance of its owner."""
    instance = queue.rpartition(".")[2]
    return _INSTANCE.fullmatch(instance) is not None and queue == names.reply_queue(owner, instance)


def check_extensions(ext: Mapping[Any, Any]) -> None:
    """Check the extensions of a header.

    Raises:
        MalformedError: Too many, or a key or value of the wrong type, length or order.
    """
    if len(ext) > EXTENSIONS_MAX:
        raise MalformedError(f"the header has more than {EXTENSIONS_MAX} extensions")
    previous = b""
    for key, held in ext.items():
        if type(key) is not str or type(held) not in _EXTENSION_TYPES:
            raise MalformedError("the header has an extension of the wrong type")
        encoded = key.encode()
        # Strictly ascending: a repeated key would let two readers see two values.
        if not previous < encoded or len(encoded) > EXTENSION_KEY_MAX:
            raise MalformedError("the header's extensions are out of order or have a key beyond 32 bytes")
        _check_extension(key, held)
        previous = encoded


def refuse_critical(ext: Mapping[str, Any]) -> None:
    """Refuse critical extensions that this version does not know.

    Raises:
        UnsupportedError: There is one.
    """
    for key in ext:
        if key.startswith("!") and key not in EXTENSIONS_CRITICAL:
            raise UnsupportedError("the header has a critical extension that this receiver does not know")


def _check_extension(key: str, value: Any) -> None:
    expected = _TYPED_EXTENSIONS.get(key)
    if expected is not None and type(value) is not expected:
        raise MalformedError(f"the header's extension {key!r} has the wrong type")
    size = len(value.encode()) if type(value) is str else len(value) if type(value) is bytes else 0
    if size > EXTENSION_VALUE_MAX:
        raise MalformedError(f"the header has an extension beyond {EXTENSION_VALUE_MAX} bytes")
    is_valid = {
        "cause": size == ID_BYTES,
        "bv": key == "bv" and value >= 0,
        "slot": key == "slot" and 0 <= value < SLOTS,
    }
    if not is_valid.get(key, True):
        raise MalformedError(f"the header's extension {key!r} has no valid value")
