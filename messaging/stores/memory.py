"""The inbox in memory: bounded in ids and in bytes of kept replies; gone with the process.

After a restart every message is runnable again until it expires, and replicas do not share it: handlers stay
idempotent, or use a durable inbox.
"""

from collections import OrderedDict
from dataclasses import dataclass, field
from itertools import count, islice
from typing import Final

from messaging.core.ambient import Ambient
from messaging.core.inbox import Decision, Replaying, RowState, judge
from messaging.stores.base import Grouping, InboxKey, Reservation, SeenBundle

__all__ = ["MemoryInbox", "MemorySeenBundles"]

KEPT_REPLIES_MAX_BYTES: Final = 32 * 1024 * 1024
# How many old rows one new row may push out: more than one, so that a full table shrinks, bounded, so that no single
# reservation pays for all.
_EVICTIONS_PER_ROW: Final = 4
# The oldest row is seldom too old, and looking at it costs more than the rest of its check.
_LOOK_EVERY_S: Final = 1.0
# Receivers accept a message for so long after its end.
_SKEW_MS: Final = 60_000


@dataclass(slots=True)
class _Row:
    leaf: bytes
    state: RowState
    token: int | None
    until_s: float
    expires_at_ms: int
    previous: RowState = RowState.ABSENT
    reply: bytes | None = field(default=None, repr=False)


_Place = tuple[str, str, int]


def _place(key: InboxKey) -> _Place:
    """Return what a row is found by: that of a UUID is hashed in Python each time, its number is not."""
    return key.service, key.sender, key.message_id.int


class MemoryInbox:
    """Keeps at most `max_ids` rows, each until its message has expired and for `ttl_s` seconds at least.

    See `Inbox` for the methods.
    """

    def __init__(self, *, ambient: Ambient, max_ids: int = 100_000, ttl_s: float = 3_600.0) -> None:
        self._ambient = ambient
        self._max_ids = max_ids
        self._ttl_s = ttl_s
        self._rows: OrderedDict[_Place, _Row] = OrderedDict()
        self._tokens = count(1)
        self._reply_bytes = 0
        # The newest lease, and until when the oldest row need not be looked at.
        self._newest = 0
        self._calm_until_s = 0.0

    def __len__(self) -> int:
        return len(self._rows)

    async def state(self, key: InboxKey, *, leaf: bytes) -> RowState:
        """Return the row's state as these bytes see it."""
        row = self._rows.get(_place(key))
        return RowState.ABSENT if row is None or row.leaf != leaf else self._state_of(row)

    async def reserve(
        self, key: InboxKey, *, leaf: bytes, expires_at_ms: int, lease_s: float, grouping: Grouping | None = None
    ) -> Reservation:
        """Take a lease for a delivery if it may run; there are no transactions to share."""
        place = _place(key)
        row = self._rows.get(place)
        if row is None:
            # The usual case: nothing is known of it.
            return self._lease(key, place, None, leaf, lease_s, expires_at_ms)
        decision = self._judge(row, leaf)
        if decision is not Decision.RUN:
            # Also for other bytes: a caller that repeats a request under its id seals it anew.
            return Reservation(key=key, decision=decision, reply=row.reply)
        return self._lease(key, place, row, leaf, lease_s, expires_at_ms)

    async def reserve_replay(
        self,
        key: InboxKey,
        *,
        leaf: bytes,
        outer: InboxKey,
        outer_leaf: bytes,
        replaying: Replaying,
        expires_at_ms: int,
        lease_s: float,
    ) -> Reservation:
        """Take a lease for the original and for the operator's wrapper, or for neither."""
        wrapper = self._judge(self._rows.get(_place(outer)), outer_leaf)
        if wrapper is not Decision.RUN:
            return Reservation(key=outer, decision=wrapper)
        decision = self._judge(self._rows.get(_place(key)), leaf, replaying)
        if decision is not Decision.RUN:
            return Reservation(key=key, decision=decision)
        # The original first: once leased it cannot be pushed out by the wrapper's row.
        place = _place(key)
        reservation = self._lease(key, place, self._rows.get(place), leaf, lease_s, expires_at_ms)
        place = _place(outer)
        self._lease(outer, place, self._rows.get(place), outer_leaf, lease_s, expires_at_ms)
        return Reservation(key=key, decision=Decision.RUN, token=reservation.token, outer=outer)

    async def complete(self, reservation: Reservation, *, reply: bytes | None = None) -> bool:
        """Record that the handler ran."""
        held = self._settle(reservation, RowState.DONE)
        if held and reply is not None:
            self._keep(self._rows[_place(reservation.key)], reply)
        return held

    async def renew(self, reservation: Reservation) -> Reservation:
        """Go on: there is nothing to undo, handlers write elsewhere."""
        return reservation

    async def undo(self, reservation: Reservation) -> None:
        """Nothing to undo, see `renew`."""

    async def fail(self, reservation: Reservation) -> bool:
        """Record that the message was buried."""
        return self._settle(reservation, RowState.FAILED)

    async def release(self, reservation: Reservation) -> bool:
        """Give the lease back; a replayed original is `failed` again until its wrapper returns."""
        place = _place(reservation.key)
        row = self._held(place, reservation)
        if row is None:
            return False
        if reservation.outer is not None:
            self._forget(_place(reservation.outer))
        if row.previous is RowState.ABSENT:
            self._forget(place)
        else:
            self._end(place, row, row.previous)
        return True

    def _judge(self, row: _Row | None, leaf: bytes, replaying: Replaying | None = None) -> Decision:
        state = RowState.ABSENT if row is None else self._state_of(row)
        same = state is RowState.ABSENT or row is None or row.leaf == leaf
        return judge(state, same_leaf=same, replay=replaying)

    def _state_of(self, row: _Row) -> RowState:
        if self._ambient.monotonic_s() < row.until_s:
            return row.state
        if row.state is not RowState.LEASED:
            return RowState.ABSENT
        # The lease of a replay that never ended leaves what it was taken on: raw bytes that failed stay failed.
        return RowState.LEASE_EXPIRED if row.previous is RowState.ABSENT else row.previous

    def _lease(
        self, key: InboxKey, place: _Place, before: _Row | None, leaf: bytes, lease_s: float, expires_at_ms: int
    ) -> Reservation:
        token = self._newest = next(self._tokens)
        previous = RowState.ABSENT
        if before is not None:
            seen = self._state_of(before)
            if seen is RowState.DONE or seen is RowState.FAILED:
                previous = seen
            self._forget(place)
        now_s = self._ambient.monotonic_s()
        self._evict(now_s)
        self._rows[place] = _Row(leaf, RowState.LEASED, token, now_s + lease_s, expires_at_ms, previous)
        return Reservation(key=key, decision=Decision.RUN, token=token)

    def _settle(self, reservation: Reservation, state: RowState) -> bool:
        place = _place(reservation.key)
        row = self._held(place, reservation)
        if row is None:
            return False
        self._end(place, row, state)
        if reservation.outer is not None and (outer := self._rows.get(_place(reservation.outer))) is not None:
            self._end(_place(reservation.outer), outer, RowState.DONE)
        return True

    def _held(self, place: _Place, reservation: Reservation) -> _Row | None:
        """Return the row if the reservation's lease is still its own."""
        row = self._rows.get(place)
        return None if row is None or row.token is None or row.token != reservation.token else row

    def _end(self, place: _Place, row: _Row, state: RowState) -> None:
        # Bytes that somebody kept are accepted until they expire, so what happened to them is remembered as long.
        alive_s = (row.expires_at_ms + _SKEW_MS - self._ambient.now_ms()) / 1000
        if row.token != self._newest:
            # Others were leased meanwhile; the newest stands at the end already.
            self._rows.move_to_end(place)
        row.state, row.token = state, None
        row.until_s = self._ambient.monotonic_s() + max(self._ttl_s, alive_s)

    def _keep(self, row: _Row, reply: bytes) -> None:
        if self._reply_bytes + len(reply) <= KEPT_REPLIES_MAX_BYTES:
            row.reply = reply
            self._reply_bytes += len(reply)

    def _evict(self, now_s: float) -> None:
        """Make room for one row: drop what is too old or too many, oldest first; a live lease is never dropped."""
        if len(self._rows) < self._max_ids:
            if now_s < self._calm_until_s:
                return
            oldest = next(iter(self._rows.values()), None)
            if oldest is None or oldest.until_s > now_s:
                self._calm_until_s = now_s + _LOOK_EVERY_S
                return
        for place in list(islice(self._rows, _EVICTIONS_PER_ROW)):
            row = self._rows[place]
            is_alive = row.until_s > now_s
            if is_alive and len(self._rows) < self._max_ids:
                return
            if is_alive and row.state is RowState.LEASED:
                self._rows.move_to_end(place)
            else:
                self._forget(place)

    def _forget(self, place: _Place) -> None:
        row = self._rows.pop(place, None)
        if row is not None and row.reply is not None:
            self._reply_bytes -= len(row.reply)


class MemorySeenBundles:
    """Remembers trust bundles from one start to the next in one process; see `SeenBundles` for the methods."""

    def __init__(self) -> None:
        self._newest: dict[str, SeenBundle] = {}

    async def newest(self, realm: str) -> SeenBundle | None:
        """Return the newest one of a realm."""
        return self._newest.get(realm)

    async def record(self, realm: str, seen: SeenBundle) -> None:
        """Remember a bundle, unless it is older than or as old as what is remembered."""
        known = self._newest.get(realm)
        if known is None or known.version < seen.version:
            self._newest[realm] = seen
