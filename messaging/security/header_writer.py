"""From an envelope to the bytes of its header: which fields it has, and the usual ones in one step.

The counterpart of `header_reader`: what is written here is byte for byte what `pack_header` writes.
"""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from messaging.core.envelope import Envelope
from messaging.errors import ConfigurationError
from messaging.security.header import EXTENSION_VALUE_MAX, UINT_32_MAX, pack_header, pack_unbound
from messaging.security.packed import pack_short

__all__ = ["write_header"]


def write_header(
    envelope: Envelope, opening: bytes, mid: bytes, salt: bytes, commitment: bytes, bundle_version: int
) -> bytes:
    """Return the header of an envelope that was checked to be consistent.

    Args:
        envelope: The message.
        opening: What `Address.pack` returned for it.
        mid: Bytes of its id.
        salt: 16 fresh bytes.
        commitment: Key commitment, 32 bytes.
        bundle_version: Of the bundle that is sent by; an envelope's own version comes first.

    Raises:
        ConfigurationError: The trace context is too long.
    """
    correlation, bind, reply_to = envelope.correlation_id, envelope.bind, envelope.reply_to
    iat, exp = envelope.issued_at_ms, envelope.expires_at_ms
    # A message that begins something has one object for both.
    corr = mid if correlation is envelope.id else None if correlation is None else correlation.bytes
    ext = _extensions(envelope, bundle_version)
    if bind is None and reply_to is None and corr is not None and iat > UINT_32_MAX and isinstance(ext, bytes):
        return pack_unbound(opening, mid, iat, exp, corr, salt, commitment, ext)
    return pack_header(
        opening, mid=mid, iat=iat, exp=exp, corr=corr, bind=bind, rto=reply_to, salt=salt, cmt=commitment, ext=ext
    )


def _extensions(envelope: Envelope, bundle_version: int) -> Mapping[str, Any] | bytes:
    # Keys in ascending order, as the header demands.
    version = bundle_version if envelope.bundle_version is None else envelope.bundle_version
    traceparent = envelope.traceparent
    if envelope.causation_id is None and envelope.slot is None and traceparent is None:
        return _version_alone(version)
    extensions: dict[str, Any] = {"bv": version}
    if envelope.causation_id is not None:
        extensions["cause"] = envelope.causation_id.bytes
    if envelope.slot is not None:
        extensions["slot"] = envelope.slot
    if traceparent is not None:
        if len(traceparent.encode()) > EXTENSION_VALUE_MAX:
            raise ConfigurationError(f"traceparent is beyond {EXTENSION_VALUE_MAX} bytes")
        extensions["traceparent"] = traceparent
    return extensions


@lru_cache(maxsize=64, typed=True)
def _version_alone(version: int) -> bytes:
    return pack_short({"bv": version})
