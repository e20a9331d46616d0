"""`SqlUnit`: one handler's transaction. The inbox row is its first statement, what is to be sent its last."""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Transaction
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from messaging.core.schedule import Cancellation
from messaging.errors import ConfigurationError
from messaging.stores.base import Outgoing, Scheduled, Sealing
from messaging.stores.sql.database import Database, is_undone, lent, mapped, take_back
from messaging.stores.sql.inserts import Inserts, write_rows
from messaging.stores.sql.schedule import cancel, schedule
from messaging.stores.sql.staging import Staging

__all__ = ["SqlUnit", "begin", "end", "flush", "root_of", "session_on"]


class SqlUnit:
    """Inbox row, business rows and what is to be sent, committed as one.

    Args:
        connection: In a transaction, which ends with the unit.
        database: Whose turn to write is taken.
        staging: Writes the outbox rows.
    """

    def __init__(self, connection: AsyncConnection, database: Database, staging: Staging) -> None:
        self.connection = connection
        self._root = root_of(connection)
        self._database = database
        self._staging = staging
        self._staged: list[Outgoing | Sealing] = []
        self._session: AsyncSession | None = None
        self._inserts = Inserts()
        self._is_used = False
        self._is_open = True

    @classmethod
    async def begin(cls, database: Database, staging: Staging) -> "SqlUnit":
        """Take this process's turn to write, and open a transaction.

        Raises:
            StoreUnavailableError: the database cannot be reached or does not answer.
        """
        return cls(await begin(database), database, staging)

    @property
    def session(self) -> AsyncSession:
        """What handlers write their own rows through; made when it is first asked for."""
        if self._session is None:
            self._session, self._is_used = session_on(lent(self.connection)), True
        return self._session

    def find(self, kind: type) -> object | None:
        """Return the session, the connection or the rows for later, whichever is of this class."""
        if issubclass(Inserts, kind):
            return self._inserts
        self._is_used = True
        if issubclass(AsyncSession, kind):
            return self.session
        return lent(self.connection) if issubclass(AsyncConnection, kind) else None

    async def stage(self, message: Outgoing | Sealing) -> None:
        """Keep a message for the outbox; it is signed and its row is written with all others at the end."""
        self._staged.append(message)

    async def schedule(self, scheduled: Scheduled) -> None:
        """Write a message for later; it is on the schedule once the transaction is committed."""
        self._is_used = True
        await schedule(self.connection, self._database, self._staging.service, scheduled)

    async def cancel(self, message_id: UUID) -> Cancellation:
        """Cancel a scheduled message, if the transaction is committed."""
        self._is_used = True
        return await cancel(self.connection, self._database, self._staging.service, message_id)

    async def commit(self, *last: tuple[Any, dict[str, Any]]) -> None:
        """Make everything happen.

        Args:
            *last: Statements of the library's own that belong to it, with their values.
        """
        try:
            if self._is_used:
                await flush(self.connection, self._session, root=self._root)
            with mapped():
                for statement, values in last:
                    await self.connection.execute(statement, values)
            await end(self.connection, self._staging, self._staged, inserts=(self._inserts,), is_used=self._is_used)
        finally:
            await self.close()

    async def close(self) -> None:
        """Undo what was not committed, and let the next writer in. Twice is once."""
        if self._is_open:
            self._is_open = False
            try:
                with mapped():
                    if self._session is not None:
                        await self._session.close()
                    await self.connection.close()
            finally:
                self._database.release_writer()


async def begin(database: Database) -> AsyncConnection:
    """Take this process's turn to write, and open a transaction.

    Raises:
        StoreUnavailableError: the database cannot be reached or does not answer.
    """
    await database.acquire_writer()
    try:
        with mapped(only_ours=True):
            connection = await database.writer.connect()
            try:
                await connection.begin()
            except BaseException:
                await connection.close()
                raise
    except BaseException:
        database.release_writer()
        raise
    return connection


def root_of(connection: AsyncConnection) -> Transaction:
    """Return the transaction that has begun on a connection; a later one on the same connection is another."""
    begun = None if connection.sync_connection is None else connection.sync_connection.get_transaction()
    if begun is None:
        raise ConfigurationError("a unit begins with a transaction")
    return begun


def session_on(connection: AsyncConnection) -> AsyncSession:
    """Return a session inside a transaction that it can roll back, but not commit: the library does."""
    return AsyncSession(connection, expire_on_commit=False, join_transaction_mode="rollback_only")


async def flush(connection: AsyncConnection, session: AsyncSession | None, *, root: Transaction) -> None:
    """Write what a handler's session still holds.

    Args:
        connection: The handler's.
        session: The handler's, if it asked for one.
        root: The transaction that the inbox row is in.

    Raises:
        ConfigurationError: the handler rolled its transaction back, or went on after SQLite had: its work and the
            inbox row are gone.
    """
    if not root.is_active:
        # Also if it went on: the next statement has begun another one.
        raise ConfigurationError(
            "the handler rolled back the transaction that the inbox row is in; raise instead, or use "
            "`async with session.begin_nested():` for a part that may fail"
        )
    if is_undone(connection):
        raise ConfigurationError(
            "the handler went on after an error at which SQLite had undone everything, its work and the inbox row; let "
            "that error through (a full disk, `ON CONFLICT ROLLBACK`)"
        )
    if session is not None and (session.new or session.dirty or session.deleted):
        with _whole():
            await session.flush()


async def end(
    connection: AsyncConnection,
    staging: Staging,
    staged: Sequence[Outgoing | Sealing],
    *,
    inserts: Sequence[Inserts],
    is_used: bool,
) -> None:
    """Write the rows that were left for the end, sign and write what is to be sent, and commit.

    Raises:
        MessagingError: it cannot be signed.
        ConfigurationError: a handler went on after a statement of it had failed: everything is undone.
        StoreUnavailableError: the database does not answer.
    """
    sealed = await _sealed(staged)
    with mapped():
        with _whole():
            await write_rows(connection, inserts)
            if is_used and not staged:
                # PostgreSQL answers the COMMIT of a transaction that failed with a rollback, and calls that success.
                await staging.check(connection)
            written = await staging.write(connection, sealed)
        take_back(connection)
        await connection.commit()
    staging.committed(written)


async def _sealed(staged: Sequence[Outgoing | Sealing]) -> list[Outgoing]:
    """Seal everything in one turn of the event loop: it shares a signature."""
    if not staged:
        return []
    begun = [None if isinstance(each, Outgoing) else each() for each in staged]
    done = iter(await asyncio.gather(*(each for each in begun if each is not None)))
    return [each if isinstance(each, Outgoing) else next(done) for each in staged]


@contextmanager
def _whole() -> Iterator[None]:
    try:
        yield
    except DBAPIError as error:
        if getattr(error.orig, "sqlstate", "") != _FAILED_TRANSACTION:
            raise
        raise ConfigurationError(
            "a handler went on after a statement of its own had failed, and PostgreSQL has undone everything; use "
            "`async with session.begin_nested():` for a part that may fail"
        ) from error


_FAILED_TRANSACTION: Final = "25P02"
