"""The key block: the data key, wrapped to each recipient (docs/spec.md, "Key block", "Row choice").

One block serves every message of a data-key period and travels in each of them: whoever finds a message later, after a
restart or in a dead queue, needs nothing else to open it.
"""

from dataclasses import dataclass
from typing import Any, Final

from messaging.core.names import is_operator, is_service
from messaging.errors import Disposition, MalformedError
from messaging.security.packed import pack, unpack
from messaging.security.suite import SUITE_1, WRAPPED_BYTES

__all__ = ["ROWS_MAX", "KeyBlock", "Row", "is_recipient", "pack_block", "parse_block"]

ROWS_MAX: Final = 18
ID_BYTES: Final = 16
KID_BYTES: Final = 8
RECIPIENT_MAX: Final = 64

_GROUP: Final = "group:"


@dataclass(frozen=True, slots=True, order=True)
class Row:
    """The data key, wrapped to one key of one recipient.

    Attributes:
        rid: Recipient: a service, an operator, or `group:<name>`.
        rkid: Id of the recipient's key.
        wrapped: 80 bytes in suite 1, 1168 in suite 2.
    """

    rid: str
    rkid: bytes
    wrapped: bytes


@dataclass(frozen=True, slots=True)
class KeyBlock:
    """A parsed key block.

    Attributes:
        dek_id: 16 bytes that name the data key.
        made_at_ms: When it was made, Unix milliseconds.
        rows: Strictly ascending by recipient and key.
    """

    dek_id: bytes
    made_at_ms: int
    rows: tuple[Row, ...]

    def has(self, rid: str) -> bool:
        """Tell whether there is a row for a recipient."""
        return any(row.rid == rid for row in self.rows)


def is_recipient(text: str) -> bool:
    """Tell whether the text may name a recipient."""
    return is_service(text) or is_operator(text) or (text.startswith(_GROUP) and is_operator("ops:" + text[6:]))


def pack_block(block: KeyBlock) -> bytes:
    """Return the bytes of a block. ASCII ids sort as text exactly as their UTF-8 bytes do."""
    return pack([block.dek_id, block.made_at_ms, [[row.rid, row.rkid, row.wrapped] for row in block.rows]])


def parse_block(raw: bytes, *, suite: int = SUITE_1) -> KeyBlock:
    """Parse a block whose signature holds.

    Args:
        raw: The bytes.
        suite: The message's: it says how long a wrapped key is.

    Raises:
        MalformedError: Any deviation from the one form; the message's content has failed.
    """
    fields = unpack(
        raw, what="key block", array_max=ROWS_MAX, text_max=RECIPIENT_MAX, bytes_max=WRAPPED_BYTES[suite],
        disposition=Disposition.CONTENT,
    )  # fmt: skip
    if not (type(fields) is list and len(fields) == 3 and [type(field) for field in fields] == [bytes, int, list]):
        raise _malformed("the key block is no array of id, time and rows")
    dek_id, made_at_ms, rows = fields
    if len(dek_id) != ID_BYTES or made_at_ms < 0 or not rows:
        raise _malformed("the key block has no valid id, time or row")
    block = KeyBlock(dek_id, made_at_ms, tuple(_parse_row(row, WRAPPED_BYTES[suite]) for row in rows))
    if any(
        not (left.rid, left.rkid) < (right.rid, right.rkid)
        for left, right in zip(block.rows, block.rows[1:], strict=False)
    ):
        raise _malformed("the rows of the key block are out of order")
    if pack_block(block) != raw:
        raise _malformed("the key block is not in its one canonical form")
    return block


def _parse_row(row: Any, wrapped_bytes: int) -> Row:
    if not (type(row) is list and [type(field) for field in row] == [str, bytes, bytes]):
        raise _malformed("a row of the key block is no array of recipient, key id and wrapped key")
    rid, rkid, wrapped = row
    if not is_recipient(rid) or len(rkid) != KID_BYTES or len(wrapped) != wrapped_bytes:
        raise _malformed("a row of the key block has a recipient, key id or wrapped key of the wrong form")
    return Row(rid, rkid, wrapped)


def _malformed(message: str) -> MalformedError:
    return MalformedError(message, disposition=Disposition.CONTENT)
