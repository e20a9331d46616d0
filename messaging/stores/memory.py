"""The inbox in memory: bounded in ids and in bytes of kept replies; gone with the process.

After a restart every message is runnable again until it expires, and replicas do not share it: handlers stay
idempotent, or use a durable inbox.
"""

from itertools import count
from typing import Final

from messaging.core.ambient import Ambient
from messaging.core.inbox import Decision, Replaying, RowState, judge
from messaging.stores.base import Grouping, InboxKey, Reservation, SeenBundle
from messaging.stores.memory_rows import Place, Row, Rows, Table, place_of

__all__ = ["MemoryInbox", "MemorySeenBundles"]

KEPT_REPLIES_MAX_BYTES: Final = 32 * 1024 * 1024
# Receivers accept a message for so long after its end.
_SKEW_MS: Final = 60_000


class MemoryInbox:
    """Keeps at most `max_ids` rows, each until its message has expired and for `ttl_s` seconds at least.

    See `Inbox` for the methods.
    """

    def __init__(self, *, ambient: Ambient, max_ids: int = 100_000, ttl_s: float = 3_600.0) -> None:
        self._ambient = ambient
        self._ttl_s = ttl_s
        self._rows = Rows(most=max_ids)
        self._tokens = count(1)

    def __len__(self) -> int:
        return len(self._rows)

    async def state(self, key: InboxKey, *, leaf: bytes) -> RowState:
        """Return the row's state as these bytes see it."""
        row = self._rows.find(place_of(key))
        return RowState.ABSENT if row is None or row.leaf != leaf else self._state_of(row)

    async def reserve(
        self, key: InboxKey, *, leaf: bytes, expires_at_ms: int, lease_s: float, grouping: Grouping | None = None
    ) -> Reservation:
        """Take a lease for a delivery if it may run; there are no transactions to share."""
        place = place_of(key)
        table = self._rows.table(place)
        row = table.get(place)
        if row is None:
            # The usual case: nothing is known of it.
            return self._lease(key, table, place, leaf, lease_s, expires_at_ms)
        decision = self._judge(row, leaf)
        if decision is not Decision.RUN:
            # Also for other bytes: a caller that repeats a request under its id seals it anew.
            return Reservation(key=key, decision=decision, reply=row.reply)
        return self._lease(key, table, place, leaf, lease_s, expires_at_ms, self._before(row))

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
        wrapper = self._judge(self._rows.find(place_of(outer)), outer_leaf)
        if wrapper is not Decision.RUN:
            return Reservation(key=outer, decision=wrapper)
        decision = self._judge(self._rows.find(place_of(key)), leaf, replaying)
        if decision is not Decision.RUN:
            return Reservation(key=key, decision=decision)
        # The original first: once leased it cannot be pushed out by the wrapper's row.
        reservation = self._lease_again(key, leaf, lease_s, expires_at_ms)
        self._lease_again(outer, outer_leaf, lease_s, expires_at_ms)
        return Reservation(key=key, decision=Decision.RUN, token=reservation.token, outer=outer)

    async def complete(self, reservation: Reservation, *, reply: bytes | None = None) -> bool:
        """Record that the handler ran."""
        row = self._settle(reservation, RowState.DONE)
        if row is None:
            return False
        if reply is not None and self._rows.reply_bytes + len(reply) <= KEPT_REPLIES_MAX_BYTES:
            self._rows.keep(row, reply)
        return True

    async def renew(self, reservation: Reservation) -> Reservation:
        """Go on: there is nothing to undo, handlers write elsewhere."""
        return reservation

    async def undo(self, reservation: Reservation) -> None:
        """Nothing to undo, see `renew`."""

    async def fail(self, reservation: Reservation) -> bool:
        """Record that the message was buried."""
        return self._settle(reservation, RowState.FAILED) is not None

    async def release(self, reservation: Reservation) -> bool:
        """Give the lease back; a replayed original is `failed` again until its wrapper returns."""
        row = self._rows.held(reservation.token)
        if row is None:
            return False
        if reservation.outer is not None and (outer := self._rows.find(place_of(reservation.outer))) is not None:
            self._rows.forget(outer)
        if row.previous is RowState.ABSENT:
            self._rows.forget(row)
        else:
            self._end(row, row.previous)
        return True

    def _judge(self, row: Row | None, leaf: bytes, replaying: Replaying | None = None) -> Decision:
        state = RowState.ABSENT if row is None else self._state_of(row)
        same = state is RowState.ABSENT or row is None or row.leaf == leaf
        return judge(state, same_leaf=same, replay=replaying)

    def _state_of(self, row: Row) -> RowState:
        if self._ambient.monotonic_s() < row.until_s:
            return row.state
        if row.state is not RowState.LEASED:
            return RowState.ABSENT
        # The lease of a replay that never ended leaves what it was taken on: raw bytes that failed stay failed.
        return RowState.LEASE_EXPIRED if row.previous is RowState.ABSENT else row.previous

    def _lease(
        self,
        key: InboxKey,
        table: Table,
        place: Place,
        leaf: bytes,
        lease_s: float,
        expires_at_ms: int,
        previous: RowState = RowState.ABSENT,
    ) -> Reservation:
        token, now_s = next(self._tokens), self._ambient.monotonic_s()
        self._rows.lease(Row(table, place, leaf, expires_at_ms, now_s + lease_s, token, previous), now_s)
        # By position, which takes half the time: one for every message.
        return Reservation(key, Decision.RUN, leaf, expires_at_ms, token)

    def _lease_again(self, key: InboxKey, leaf: bytes, lease_s: float, expires_at_ms: int) -> Reservation:
        place = place_of(key)
        table = self._rows.table(place)
        row = table.get(place)
        previous = RowState.ABSENT if row is None else self._before(row)
        return self._lease(key, table, place, leaf, lease_s, expires_at_ms, previous)

    def _before(self, row: Row) -> RowState:
        """Forget a row, and return what the next lease is taken on."""
        seen = self._state_of(row)
        self._rows.forget(row)
        return seen if seen is RowState.DONE or seen is RowState.FAILED else RowState.ABSENT

    def _settle(self, reservation: Reservation, state: RowState) -> Row | None:
        """End the row if the reservation's lease is still its own, and return it."""
        row = self._rows.held(reservation.token)
        if row is not None:
            self._end(row, state)
            if reservation.outer is not None and (outer := self._rows.find(place_of(reservation.outer))) is not None:
                self._end(outer, RowState.DONE)
        return row

    def _end(self, row: Row, state: RowState) -> None:
        # Bytes that somebody kept are accepted until they expire, so what happened to them is remembered as long.
        alive_s = (row.expires_at_ms + _SKEW_MS - self._ambient.now_ms()) / 1000
        self._rows.end(row, state, until_s=self._ambient.monotonic_s() + max(self._ttl_s, alive_s))


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
