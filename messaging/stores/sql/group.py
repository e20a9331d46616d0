"""Many deliveries in one transaction, for handlers that opted in: one commit, one wait for the disk.

Deliveries gather until the group is full or its time is up. Then one transaction begins: one statement inserts all
inbox rows, the handlers run one after the other, one statement writes all they send, one commit ends it, and only then
does any member learn that it is done and may be acknowledged.

Rules: a member that fails, or leaves, takes the whole transaction with it. Members that had run before it learn so
(`GroupUndoneError`) and run again, each alone; those that had not begun run alone as well. So innocents commit, and
who is to blame is alone with it. A second delivery of a member never joins its group: it goes alone, and of the two one
finds the other's row and is dropped.
"""

import asyncio
from contextlib import suppress
from typing import Any
from uuid import UUID

from sqlalchemy import Transaction, select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from messaging.core.inbox import Decision, RowState, judge
from messaging.core.schedule import Cancellation
from messaging.errors import MessagingError
from messaging.stores.base import (
    Grouping,
    GroupUndoneError,
    InboxKey,
    Outgoing,
    Reservation,
    Scheduled,
    Sealing,
    StoreUnavailableError,
)
from messaging.stores.sql.database import Database, lent, mapped
from messaging.stores.sql.direct import Direct
from messaging.stores.sql.inserts import Inserts
from messaging.stores.sql.schedule import cancel, schedule
from messaging.stores.sql.schema import INBOX
from messaging.stores.sql.staging import Staging
from messaging.stores.sql.unit import begin, end, flush, root_of, session_on

__all__ = ["GroupUnit", "Groups"]


class GroupUnit:
    """One member's part of the transaction; see `SqlUnit` for the methods."""

    def __init__(self, group: "_Group", values: dict[str, Any], key: InboxKey, leaf: bytes) -> None:
        self.key = key
        self.leaf = leaf
        self.values = values
        self.staged: list[Outgoing | Sealing] = []
        self.inserts = Inserts()
        self.has_run = False
        # Whether it may run in the group, or must run alone.
        self.turn: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self.refusal: Reservation | None = None
        self._group = group
        self._session: AsyncSession | None = None
        self.is_used = False

    @property
    def connection(self) -> AsyncConnection:
        """The transaction."""
        return self._group.connection

    @property
    def session(self) -> AsyncSession:
        """What this member's handler writes its own rows through; what it loaded, no other member sees."""
        if self._session is None:
            self._session, self.is_used = session_on(lent(self.connection)), True
        return self._session

    def find(self, kind: type) -> object | None:
        """Return the session, the connection or the rows for later, whichever is of this class."""
        if issubclass(Inserts, kind):
            return self.inserts
        self.is_used = True
        if issubclass(AsyncSession, kind):
            return self.session
        return lent(self.connection) if issubclass(AsyncConnection, kind) else None

    async def stage(self, message: Outgoing | Sealing) -> None:
        """Keep a message for the outbox: those of all members are signed together."""
        self.staged.append(message)

    async def schedule(self, scheduled: Scheduled) -> None:
        """Write a message for later."""
        self.is_used = True
        await schedule(self.connection, self._group.database, self._group.staging.service, scheduled)

    async def cancel(self, message_id: UUID) -> Cancellation:
        """Cancel a scheduled message."""
        self.is_used = True
        return await cancel(self.connection, self._group.database, self._group.staging.service, message_id)

    async def commit(self, *last: tuple[Any, dict[str, Any]]) -> None:
        """Let the next member run, and wait until everything has happened.

        Raises:
            GroupUndoneError: it has not, through no fault of this member: it must run again, alone.
        """
        if self.is_used:
            await flush(self.connection, self._session, root=self._group.root)
        with mapped():
            for statement, values in last:
                await self.connection.execute(statement, values)
        await self._group.ran(self)

    async def close(self) -> None:
        """Undo the transaction, unless this member has run: then the others decide. Twice is once."""
        await self._group.leave(self)


class _Group:
    """One transaction and its members; the first one leads it until it is open."""

    def __init__(self, database: Database, staging: Staging, insert: Direct, grouping: Grouping) -> None:
        self.database = database
        self.staging = staging
        self.members: list[GroupUnit] = []
        self.is_gathering = True
        self._insert = insert
        self._grouping = grouping
        self._connection: AsyncConnection | None = None
        self._root: Transaction | None = None
        self._is_ending = False
        self._is_committed = False
        self._full = asyncio.Event()
        self._ended = asyncio.Event()

    @property
    def connection(self) -> AsyncConnection:
        """The transaction.

        Raises:
            GroupUndoneError: it has ended.
        """
        if self._connection is None:
            raise GroupUndoneError
        return self._connection

    @property
    def root(self) -> Transaction:
        """The transaction as SQLAlchemy has it; a handler that rolls back ends it, and might go on in another.

        Raises:
            GroupUndoneError: it was never open.
        """
        if self._root is None:
            raise GroupUndoneError
        return self._root

    def takes(self, key: InboxKey) -> bool:
        """Tell whether a delivery may join."""
        return self.is_gathering and all(member.key != key for member in self.members)

    def join(self, member: GroupUnit) -> None:
        """Add a member."""
        self.members.append(member)
        if len(self.members) >= self._grouping.size:
            self.is_gathering = False
            self._full.set()

    async def open(self) -> None:
        """Gather, begin the transaction, insert the rows, and let the first member run."""
        with suppress(TimeoutError):
            async with asyncio.timeout(self._grouping.wait_s):
                await self._full.wait()
        # On SQLite this may wait for another writer; whoever comes meanwhile still joins.
        self._connection = await begin(self.database)
        self._root = root_of(self._connection)
        self.is_gathering = False
        await self._insert_rows(self._connection)
        self._next()

    async def ran(self, member: GroupUnit) -> None:
        """Note that a member has run; the last one commits."""
        member.has_run = True
        if self._next():
            await self._ended.wait()
        else:
            await self._commit()
        if not self._is_committed:
            raise GroupUndoneError

    async def leave(self, member: GroupUnit) -> None:
        """Undo everything because of a member; one that has run, or never joined the transaction, changes nothing."""
        if self.is_gathering and self._connection is None:
            self.members.remove(member)
        elif not member.has_run:
            await self.undo()

    async def undo(self) -> None:
        """Roll back, then wake everybody."""
        if self._is_ending:
            return
        self._is_ending = True
        self.is_gathering = False
        connection, self._connection = self._connection, None
        try:
            if connection is not None:
                # A database that is gone has rolled back by itself.
                with suppress(StoreUnavailableError), mapped():
                    await connection.close()
        finally:
            if connection is not None:
                self.database.release_writer()
            self._wake()

    async def _commit(self) -> None:
        connection = self.connection
        try:
            staged = [message for each in self.members for message in each.staged]
            inserts = [each.inserts for each in self.members]
            is_used = any(each.is_used for each in self.members)
            await end(connection, self.staging, staged, inserts=inserts, is_used=is_used)
            self._is_committed = True
        except (SQLAlchemyError, MessagingError) as error:
            # Nobody in particular is to blame: each finds out alone.
            raise GroupUndoneError from error
        finally:
            await self.undo()

    async def _insert_rows(self, connection: AsyncConnection) -> None:
        # In one order everywhere: two replicas that hold the same messages must not wait for one another in a circle.
        rows = sorted((each.values for each in self.members), key=lambda row: (row["sender"], row["message_id"]))
        with mapped(only_ours=True):
            new = {(sender, _hex(message_id)) for sender, message_id in await self._insert.run(connection, rows)}
            for member in self.members:
                if (member.key.sender, member.key.message_id.hex) not in new:
                    await self._refuse(connection, member)

    async def _refuse(self, connection: AsyncConnection, member: GroupUnit) -> None:
        """Say what is to be done with a message whose row was there already."""
        key = member.key
        row = (
            await connection.execute(
                select(INBOX.c.state, INBOX.c.leaf, INBOX.c.reply).where(
                    INBOX.c.service == key.service, INBOX.c.sender == key.sender, INBOX.c.message_id == key.message_id
                )
            )
        ).one()
        decision = judge(RowState(row.state), same_leaf=row.leaf == member.leaf)
        member.refusal = Reservation(key=key, decision=decision, reply=row.reply)
        member.has_run = True

    def _next(self) -> bool:
        """Let the next member run; returns whether there is one."""
        for member in self.members:
            if member.refusal is not None and not member.turn.done():
                member.turn.set_result(False)
        waiting = next((each for each in self.members if not each.has_run), None)
        if waiting is not None and not waiting.turn.done():
            waiting.turn.set_result(True)
        return waiting is not None

    def _wake(self) -> None:
        self._ended.set()
        for member in self.members:
            if not member.turn.done():
                member.turn.set_result(False)


def _hex(message_id: str | UUID) -> str:
    """Return an id as text, as SQLite keeps it."""
    return message_id if isinstance(message_id, str) else message_id.hex


class Groups:
    """The groups of one inbox that still gather.

    Args:
        database: Whose turn to write is taken.
        insert: Directs an inbox row unless it is there.
    """

    def __init__(self, database: Database, insert: Direct) -> None:
        self._database = database
        self._insert = insert
        # By service as well: handlers of two services may have one name, but not one inbox and one outbox.
        self._gathering: dict[tuple[str, Grouping], _Group] = {}

    async def reserve(
        self, grouping: Grouping, staging: Staging, values: dict[str, Any], key: InboxKey, leaf: bytes
    ) -> Reservation | None:
        """Join a group and wait for the turn in it; None when the delivery must run alone.

        Raises:
            StoreUnavailableError: the database cannot be reached or does not answer.
        """
        place = key.service, grouping
        group = self._gathering.get(place)
        if group is not None and group.is_gathering and not group.takes(key):
            return None
        if group is None or not group.is_gathering:
            group = self._gathering[place] = _Group(self._database, staging, self._insert, grouping)
        member = GroupUnit(group, values, key, leaf)
        is_first = not group.members
        group.join(member)
        try:
            if is_first:
                await self._open(group)
            may_run = await member.turn
        except BaseException:
            await member.close()
            raise
        if not may_run:
            return member.refusal
        return Reservation(
            key=key, decision=Decision.RUN, leaf=leaf, expires_at_ms=values["expires_at_ms"], unit=member
        )

    async def _open(self, group: _Group) -> None:
        try:
            await group.open()
        except BaseException:
            await group.undo()
            raise
        if not any(not each.has_run for each in group.members):
            # Nothing but repetitions.
            await group.undo()
