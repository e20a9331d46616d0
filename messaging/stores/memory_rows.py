"""`Rows`: the rows of the inbox in memory, found by their place and in the order of their age; its size is a bound.

One dict for all of them would be built anew beside itself each time its table is full of what was dropped, a hundred
thousand entries at once. So rows are spread over many small tables by the hash of their place. Each is rebuilt at a
time of its own, in no more room than the one before it left.

Leases are found by their token. What ended stands in line, oldest first; what leaves the line from its middle is passed
over later, and when that is more than what stays, the line is made anew.
"""

from collections import deque
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final

from messaging.core.inbox import RowState
from messaging.stores.base import InboxKey

__all__ = ["Place", "Row", "Rows", "Table", "place_of"]

Place = bytes
"""What a row is found by. Bytes: they remember their hash, and nobody who chooses ids can choose it."""

# How many rows a table has when all have come. Python then makes it anew at a size that fits up to 341, more than
# chance gives to one, so it keeps that size whatever comes and goes.
_ROWS_PER_TABLE: Final = 256
# How many old rows one new row may push out: more than one, so that full tables shrink, bounded, so that no single
# reservation pays for all.
_DROPPED_PER_ROW: Final = 4
# The oldest row is seldom too old, and looking at it costs more than the rest of its check.
_LOOK_EVERY_S: Final = 1.0
_LEFT_MIN: Final = 64


def place_of(key: InboxKey) -> Place:
    """Return what a row is found by: that of a UUID is hashed in Python each time."""
    # Names have no zero in them, and an id has 16 bytes, so no two keys have one place.
    return _opening(key.service, key.sender) + key.message_id.int.to_bytes(16)


@lru_cache(maxsize=1_024)
def _opening(service: str, sender: str) -> bytes:
    return f"{service}\0{sender}\0".encode()


Table = dict[Place, "Row"]


@dataclass(slots=True, eq=False)
class Row:
    """One message.

    Attributes:
        table, place: Where it is found.
        leaf: The leaf that was verified.
        expires_at_ms: When the message can no longer run.
        until_s: When its lease ends, or, once it has ended, when it may go; by the monotonic clock.
        token: Proof of its lease, the last one that it had.
        previous: What it was before the lease: DONE or FAILED when it is replayed, else ABSENT.
        state: LEASED, then DONE or FAILED; ABSENT once it is forgotten.
        reply: The answer that is kept.
    """

    table: Table = field(repr=False)
    place: Place
    leaf: bytes
    expires_at_ms: int
    until_s: float
    token: int
    previous: RowState
    state: RowState = RowState.LEASED
    reply: bytes | None = field(default=None, repr=False)


class Rows:
    """All rows of an inbox.

    Args:
        most: How many there may be; live leases alone may be more.

    Attributes:
        reply_bytes: How much the answers have that are kept.
    """

    def __init__(self, *, most: int) -> None:
        self.reply_bytes = 0
        self._most = most
        self._tables: list[Table] = [{} for _ in range(1 + most // _ROWS_PER_TABLE)]
        self._leases: dict[int, Row] = {}
        self._ended: deque[Row] = deque()
        # How many of those left the line from its middle.
        self._left = 0
        self._size = 0
        self._calm_until_s = 0.0

    def __len__(self) -> int:
        return self._size

    def table(self, place: Place) -> Table:
        """Return where a row of this place is, if there is one."""
        return self._tables[hash(place) % len(self._tables)]

    def find(self, place: Place) -> Row | None:
        """Return the row at a place."""
        return self.table(place).get(place)

    def lease(self, row: Row, now_s: float) -> None:
        """Add a row that is leased, at a place where there is none; others may go for it."""
        if self._size >= self._most or now_s >= self._calm_until_s:
            self._make_room(now_s)
        row.table[row.place] = row
        self._leases[row.token] = row
        self._size += 1

    def held(self, token: int | None) -> Row | None:
        """Return the row whose lease this is, unless it has gone or was taken over."""
        return None if token is None else self._leases.get(token)

    def end(self, row: Row, state: RowState, *, until_s: float) -> None:
        """Give a row its last state, and the last place in the order of what may go."""
        if self._leases.pop(row.token, None) is not None:
            self._ended.append(row)
        row.state, row.until_s = state, until_s

    def keep(self, row: Row, reply: bytes) -> None:
        """Keep an answer as long as the row."""
        row.reply = reply
        self.reply_bytes += len(reply)

    def forget(self, row: Row) -> None:
        """Remove a row."""
        if self._leases.pop(row.token, None) is None:
            self._left += 1
        self._drop(row)
        if self._left > _LEFT_MIN and 2 * self._left > len(self._ended):
            self._ended = deque(row for row in self._ended if row.state is not RowState.ABSENT)
            self._left = 0

    def _drop(self, row: Row) -> None:
        del row.table[row.place]
        row.state = RowState.ABSENT
        self._size -= 1
        if row.reply is not None:
            self.reply_bytes -= len(row.reply)

    def _make_room(self, now_s: float) -> None:
        """Drop what is too old, and then what is too many, oldest first; a live lease is never dropped."""
        dropped = 0 if now_s < self._calm_until_s else self._drop_aged(now_s)
        while dropped < _DROPPED_PER_ROW and self._size >= self._most:
            oldest = self._oldest()
            if oldest is None:
                return
            self._ended.popleft()
            self._drop(oldest)
            dropped += 1

    def _oldest(self) -> Row | None:
        ended = self._ended
        while ended:
            if ended[0].state is not RowState.ABSENT:
                return ended[0]
            ended.popleft()
            self._left -= 1
        return None

    def _drop_aged(self, now_s: float) -> int:
        for dropped in range(_DROPPED_PER_ROW):
            oldest, leased = self._oldest(), next(iter(self._leases.values()), None)
            if oldest is not None and oldest.until_s <= now_s:
                self._ended.popleft()
                self._drop(oldest)
            elif leased is not None and leased.until_s <= now_s:
                self.forget(leased)
            else:
                if leased is not None:
                    # Leases do not end in their order: the next look meets another one.
                    self._leases[leased.token] = self._leases.pop(leased.token)
                self._calm_until_s = now_s + _LOOK_EVERY_S
                return dropped
        return _DROPPED_PER_ROW
