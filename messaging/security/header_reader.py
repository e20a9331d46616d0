"""`HeaderReader`: `parse_header` for one receiver, which recognises by their bytes what headers have in common.

Between two parties the first eight fields of a header (its opening) and mostly its extensions repeat from message to
message. What was accepted once is accepted again when the same bytes come: parsing depends on nothing else. Of what
lies between, six to eight fields, each kind of message has one usual form, with types and lengths at fixed places;
it is read in one step and every one of its marks is compared, so its encoding is the canonical one. Whatever is unlike
that, `parse_header` decides about, and it alone says what is wrong.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from struct import Struct
from typing import Any, Final

from messaging.core.topology import Names
from messaging.errors import MalformedError, UnsupportedError
from messaging.security.header import (
    BIN_16,
    BIN_32,
    EXTENSION_VALUE_MAX,
    EXTENSIONS_MAX,
    LIFETIME_MAX_MS,
    NILS,
    UINT_32_MAX,
    UINT_64,
    UNBOUND,
    Address,
    Header,
    check_extensions,
    parse_header,
    refuse_critical,
)
from messaging.security.packed import pack, pack_short, unpack

__all__ = ["HeaderReader"]

OPENINGS_MAX: Final = 2_048
# Of all openings together: types and queues that somebody makes up are read before anything is known about them.
QUEUES_MAX: Final = 8_192
EXTENSIONS_KEPT: Final = 1_024
# Beyond that, extensions carry something of their own message (a cause, a trace) and would only fill the memory.
EXTENSIONS_KEPT_BYTES: Final = 24

# Enough of a header to tell types and senders apart; one opening is remembered for each.
_KEY_BYTES: Final = 40
_NIL: Final = 0xC0

# As `UNBOUND`, but with a bind; of requests, the length of the reply queue decides about the form.
_UNBOUND_MARKS: Final = (BIN_16, UINT_64, UINT_64, BIN_16, NILS, BIN_16, BIN_32)
_BOUND: Final = Struct(">H16sBQBQH16s H32sBH16sH32s")
_BOUND_MARKS: Final = (BIN_16, UINT_64, UINT_64, BIN_16, BIN_32, _NIL, BIN_16, BIN_32)
_ASKING_MARKS: Final = (BIN_16, UINT_64, UINT_64, BIN_16, _NIL, BIN_16, BIN_32)


@dataclass(frozen=True, slots=True)
class _Opening:
    # An accepted opening. No opening is the beginning of another: each ends with its eighth field.
    raw: bytes
    address: Address
    name: str
    version: int
    read: Callable[["_Opening", bytes, "_Extensions"], Header | None]
    # Of requests: the form with a reply queue in it, all of a sender's are equally long; and those accepted before.
    asking: Struct = UNBOUND
    queues: dict[bytes, str] = field(default_factory=dict)


class _Extensions:
    # Reads the extensions at the end of a header; None for what `parse_header` has to look at.

    __slots__ = ("_known",)

    def __init__(self) -> None:
        self._known: dict[bytes, Mapping[str, Any]] = {}

    def read(self, raw: bytes) -> Mapping[str, Any] | None:
        ext = self._known.get(raw)
        if ext is None:
            ext = _parsed(raw)
            if ext is not None and len(raw) <= EXTENSIONS_KEPT_BYTES:
                if len(self._known) >= EXTENSIONS_KEPT:
                    self._known.clear()
                self._known[raw] = ext
        return ext


class HeaderReader:
    """Parses headers for one receiver.

    Args:
        names: The namespace whose exchanges and queues a header may name.
        suites: Suites that this receiver accepts.
    """

    def __init__(self, names: Names, suites: frozenset[int]) -> None:
        self._names = names
        self._suites = suites
        self._openings: dict[bytes, _Opening] = {}
        self._queues = 0
        self._extensions = _Extensions()

    def parse(self, raw: bytes) -> Header:
        """Return what `parse_header` does.

        Raises:
            MalformedError, UnsupportedError: As `parse_header`.
        """
        opening = self._openings.get(raw[:_KEY_BYTES])
        if opening is not None and raw.startswith(opening.raw):
            header = opening.read(opening, raw, self._extensions)
            if header is not None:
                return header
        header = parse_header(raw, names=self._names, suites=self._suites)
        self._learn(raw, header)
        return header

    def _learn(self, raw: bytes, header: Header) -> None:
        place = raw[:_KEY_BYTES]
        opening = self._openings.get(place)
        if opening is None or not raw.startswith(opening.raw):
            if len(self._openings) >= OPENINGS_MAX:
                self._openings.clear()
                self._queues = 0
            opening = self._openings[place] = _opening_of(header)
        if header.rto is not None and (queue := pack(header.rto)) not in opening.queues:
            if self._queues >= QUEUES_MAX:
                for known in self._openings.values():
                    known.queues.clear()
                self._queues = 0
            opening.queues[queue] = header.rto
            self._queues += 1


def _opening_of(header: Header) -> _Opening:
    address = header.address
    facts = (address.pack(), address, header.name, header.version)
    if header.rto is not None:
        return _Opening(*facts, _read_asking, Struct(f">H16sBQBQH16s B{len(pack(header.rto))}sH16sH32s"))
    return _Opening(*facts, _read_unbound if header.bind is None else _read_bound)


def _read_unbound(opening: _Opening, raw: bytes, extensions: _Extensions) -> Header | None:
    # Commands and events: neither bind nor reply queue.
    at = len(opening.raw)
    # Where the middle is cut short, nothing is left for the extensions, so they come first.
    ext = extensions.read(raw[at + UNBOUND.size :])
    if ext is None:
        return None
    a, mid, b, iat, c, exp, d, corr, e, f, salt, g, cmt = UNBOUND.unpack_from(raw, at)
    if (a, b, c, d, e, f, g) != _UNBOUND_MARKS or not UINT_32_MAX < iat < exp <= iat + LIFETIME_MAX_MS:
        return None
    return Header(
        opening.address, opening.name, opening.version, mid, iat, exp, corr, None, None, salt, cmt, ext
    )  # fmt: skip


def _read_bound(opening: _Opening, raw: bytes, extensions: _Extensions) -> Header | None:
    # Replies, faults and replays.
    at = len(opening.raw)
    ext = extensions.read(raw[at + _BOUND.size :])
    if ext is None:
        return None
    a, mid, b, iat, c, exp, d, corr, e, bind, f, g, salt, h, cmt = _BOUND.unpack_from(raw, at)
    if (a, b, c, d, e, f, g, h) != _BOUND_MARKS or not UINT_32_MAX < iat < exp <= iat + LIFETIME_MAX_MS:
        return None
    return Header(
        opening.address, opening.name, opening.version, mid, iat, exp, corr, bind, None, salt, cmt, ext
    )  # fmt: skip


def _read_asking(opening: _Opening, raw: bytes, extensions: _Extensions) -> Header | None:
    # Requests.
    at = len(opening.raw)
    ext = extensions.read(raw[at + opening.asking.size :])
    if ext is None:
        return None
    a, mid, b, iat, c, exp, d, corr, e, queue, f, salt, g, cmt = opening.asking.unpack_from(raw, at)
    rto = opening.queues.get(queue)
    if rto is None or (a, b, c, d, e, f, g) != _ASKING_MARKS or not UINT_32_MAX < iat < exp <= iat + LIFETIME_MAX_MS:
        return None
    return Header(
        opening.address, opening.name, opening.version, mid, iat, exp, corr, None, rto, salt, cmt, ext
    )  # fmt: skip


def _parsed(raw: bytes) -> Mapping[str, Any] | None:
    try:
        ext = unpack(
            raw, what="header", array_max=0, map_max=EXTENSIONS_MAX, text_max=EXTENSION_VALUE_MAX,
            bytes_max=EXTENSION_VALUE_MAX,
        )  # fmt: skip
        if type(ext) is not dict:
            return None
        check_extensions(ext)
        refuse_critical(ext)
    except (MalformedError, UnsupportedError):
        return None
    return ext if pack_short(ext) == raw else None
