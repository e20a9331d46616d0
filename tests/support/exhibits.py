"""`Exhibits`: what the program said while it was attacked, and the search for secrets in it.

What was said: log lines of structlog and of the standard library, errors with their tracebacks, representations.
Secret is what is drawn from the operating system and has 32 bytes or more (private keys, data keys), and the payloads'
marker, in any of the forms in which text can hold bytes.
"""

import base64
import logging
import os
import re
import traceback
from collections.abc import Iterable, Iterator, MutableMapping
from contextlib import contextmanager
from functools import cache
from itertools import chain
from types import SimpleNamespace
from typing import Any, Final

import pytest
import structlog
from structlog.typing import Processor

from messaging.errors import MessagingError
from messaging.security import suite

__all__ = ["Exhibits"]

# Private keys and data keys have 32 bytes and more; ids and salts have fewer.
_SECRET_BYTES: Final = 32
# Enough of a secret to be no accident, little enough to be found where it was cut.
_PIECE: Final = 12
_HEX: Final = re.compile(rf"[0-9a-fA-F]{{{2 * _PIECE},}}")
_BASE64: Final = re.compile(rf"[A-Za-z0-9+/_-]{{{4 * _PIECE // 3},}}")
_WIRE: Final = ("aiormq", "aio_pika", "pamqp")
_ESCAPE: Final = re.compile(rb"\\x([0-9a-f]{2})|\\(.)", re.DOTALL)
_NO_TEXT: Final = re.compile(rb"[^\x20-\x7e]")
_ESCAPED: Final = {b"n": b"\n", b"r": b"\r", b"t": b"\t"}


class Exhibits(logging.Handler):
    """Collects and searches."""

    def __init__(self) -> None:
        super().__init__(logging.NOTSET)
        self.texts: set[str] = set()
        self.secrets: set[bytes] = set()
        self.errors = 0
        self._last: BaseException | None = None
        self._seen: set[tuple[type, str]] = set()

    # ---- collecting

    def emit(self, record: logging.LogRecord) -> None:
        """Take a line of the standard library's logging, but not the AMQP client's copy of every frame on the wire."""
        if record.levelno == logging.DEBUG and record.name.startswith(_WIRE):
            return
        self.texts.add(f"{record.name} {record.getMessage()}")
        if record.exc_info is not None and record.exc_info[1] is not None:
            self.texts.add("".join(traceback.format_exception(record.exc_info[1])))

    def log(self, _logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        """Take a log event, as a processor of structlog."""
        self.texts.add(repr(dict(event)))
        return event

    def show(self, *things: object) -> None:
        """Take the representations of objects."""
        for thing in things:
            self.texts.update((repr(thing), str(thing)))

    def write(self, text: str) -> None:
        """Take what was printed."""
        self.texts.add(text)

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Take every error of ours that comes into being inside, and note every key that is made."""
        with pytest.MonkeyPatch.context() as patch:
            made, drawn = MessagingError.__init__, os.urandom

            def init(error: MessagingError, *words: Any, **more: Any) -> None:
                made(error, *words, **more)
                self._take(error)

            def fresh(size: int) -> bytes:
                found = drawn(size)
                if size >= _SECRET_BYTES:
                    self.secrets.add(found)
                return found

            patch.setattr(MessagingError, "__init__", init)
            patch.setattr(suite, "os", SimpleNamespace(urandom=fresh))
            root = logging.getLogger()
            level = root.level
            root.addHandler(self)
            root.setLevel(logging.DEBUG)
            try:
                yield
            finally:
                root.removeHandler(self)
                root.setLevel(level)
                self._take(None)

    @contextmanager
    def listening(self, *processors: Processor) -> Iterator[None]:
        """Take every log event inside; the processors see it after."""
        structlog.configure(
            processors=[structlog.contextvars.merge_contextvars, self.log, *processors, _dropped],
            wrapper_class=structlog.make_filtering_bound_logger(0),
            cache_logger_on_first_use=False,
        )
        try:
            yield
        finally:
            structlog.reset_defaults()

    def _take(self, error: BaseException | None) -> None:
        # An error tells all only once it has been raised and caught: that is when the next one comes.
        last, self._last = self._last, error
        if last is None:
            return
        self.errors += 1
        place = type(last), str(last)
        if place not in self._seen:
            self._seen.add(place)
            self.texts.update(("".join(traceback.format_exception(last)), repr(last), repr(vars(last))))

    # ---- searching

    def found(self, *markers: str) -> list[str]:
        """Return the texts that hold a secret or a marker, in whatever form."""
        words = [form for marker in markers for form in _forms(marker.encode())]
        pieces = {secret[at : at + _PIECE] for secret in self.secrets for at in range(len(secret) - _PIECE + 1)}

        @cache
        def spells(run: str) -> bool:
            return any(piece in pieces for blob in _decoded(run) for piece in _windows(blob))

        def holds(text: str) -> bool:
            runs = chain(_HEX.findall(text), _BASE64.findall(text))
            return any(map(spells, runs)) or any(piece in pieces for blob in _bytes_of(text) for piece in _odd(blob))

        return [text for text in self.texts if any(word in text for word in words) or holds(text)]


def _dropped(_logger: Any, _method: str, _event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Print nothing."""
    raise structlog.DropEvent


def _forms(secret: bytes) -> Iterable[str]:
    yield secret.decode()
    yield secret.hex()
    yield secret.hex().upper()
    for shift in range(3):
        # Whole groups alone: what stands beside the secret decides on the others.
        whole = (len(secret) + shift) // 3 * 3
        grouped = (bytes(shift) + secret)[:whole]
        yield base64.b64encode(grouped).decode()[4 if shift else 0 :]


def _windows(blob: bytes) -> Iterator[bytes]:
    for at in range(len(blob) - _PIECE + 1):
        yield blob[at : at + _PIECE]


def _odd(blob: bytes) -> Iterator[bytes]:
    """Yield the windows around whatever is no plain text: no key is plain text from end to end."""
    next_at = 0
    for found in _NO_TEXT.finditer(blob):
        for at in range(max(next_at, found.start() - _PIECE + 1), min(found.start(), len(blob) - _PIECE) + 1):
            yield blob[at : at + _PIECE]
        next_at = found.start() + 1


def _decoded(run: str) -> Iterator[bytes]:
    """Yield what a run of hex digits or of base64 may stand for."""
    if _HEX.fullmatch(run):
        yield from (bytes.fromhex(run[shift : shift + (len(run) - shift) // 2 * 2]) for shift in (0, 1))
    plain = run.replace("-", "+").replace("_", "/")
    for shift in range(4):
        yield base64.b64decode(plain[shift : shift + (len(plain) - shift) // 4 * 4])


def _bytes_of(text: str) -> Iterator[bytes]:
    """Yield the bytes that a text is and stands for, escapes resolved; what was represented twice is escaped twice."""
    raw = text.encode("latin-1", errors="ignore")
    if not text.isascii():
        yield raw
    while b"\\" in raw:
        shorter = _ESCAPE.sub(_unescaped, raw)
        yield shorter
        raw = shorter if len(shorter) < len(raw) else b""


def _unescaped(found: re.Match[bytes]) -> bytes:
    if found[1] is not None:
        return bytes.fromhex(found[1].decode())
    return _ESCAPED.get(found[2], found[2])
