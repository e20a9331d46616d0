"""The edge to msgpack: every limit set, and one error for whatever goes wrong (docs/spec.md, "Pitfalls")."""

from typing import Any, Final

import msgpack

from messaging.errors import Disposition, MalformedError

__all__ = ["pack", "pack_short", "unpack"]


def pack(value: object) -> bytes:
    """Return the msgpack encoding, in shortest form."""
    return bytes(msgpack.packb(value))


_SHORT: Final = msgpack.Packer()


def pack_short(value: object) -> bytes:
    """Return what `pack` does, for something short that consists of plain values alone.

    One packer serves all, which saves making one. Plain values never call back into Python, so no other thread comes in
    between; and it keeps the memory of the longest value it ever had.
    """
    return bytes(_SHORT.pack(value))


def unpack(
    raw: bytes,
    *,
    what: str,
    array_max: int,
    text_max: int,
    bytes_max: int,
    map_max: int = 0,
    disposition: Disposition = Disposition.UNAUTHENTIC,
) -> Any:
    """Return the decoded value.

    Args:
        raw: Bytes whose length the caller has bounded.
        what: The part's name, for the error.
        array_max: Most items of any array.
        text_max: Longest text, in bytes.
        bytes_max: Longest byte string.
        map_max: Most items of any map.
        disposition: Where a message goes that breaks this.

    Raises:
        MalformedError: Not msgpack, beyond a limit, or with bytes after the end.
    """
    try:
        return msgpack.unpackb(
            raw,
            raw=False,
            max_array_len=array_max,
            max_map_len=map_max,
            max_str_len=text_max,
            max_bin_len=bytes_max,
            max_ext_len=0,
        )
    except (ValueError, TypeError, RecursionError, msgpack.UnpackException) as exc:
        raise MalformedError(f"the {what} is no valid msgpack within its limits", disposition=disposition) from exc
