"""Brings the library's tables up to date, with Alembic; the versions stand beside this file.

Its own version table leaves an application's migrations alone. An application that prefers one history includes
`messaging.stores.sql.metadata` in its own instead.
"""

import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, event
from sqlalchemy.ext.asyncio import AsyncEngine

from messaging.errors import ConfigurationError
from messaging.stores.sql.database import Database, mapped

__all__ = ["VERSION_TABLE", "Standing", "Step", "config_for", "migrate", "rehearse", "standing"]

VERSION_TABLE = "messaging_store_version"
# What only looks; everything else changes something.
_LOOKING: Final = re.compile(r"\s*(SELECT|PRAGMA|SAVEPOINT|RELEASE)\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One version of the tables: its number and what it brings."""

    version: str
    title: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """Where a database stands.

    Attributes:
        current: The version that is recorded in it; None when none is: empty, or made by `create_tables`.
        newest: The newest that this program knows.
        pending: The steps from one to the other, in their order.
    """

    current: str | None
    newest: str
    pending: tuple[Step, ...]


def config_for(connection: Connection | None = None) -> Config:
    """Return Alembic's configuration for these migrations, bound to a connection."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent))
    config.attributes["connection"] = connection
    return config


async def migrate(engine: AsyncEngine, *, to: str = "head") -> None:
    """Bring the tables to a version; what is there already stays. Several replicas may do so at once.

    Args:
        engine: The database.
        to: An Alembic version, `head` for the newest.

    Raises:
        StoreUnavailableError: the database cannot be reached or does not answer.
        ConfigurationError: a newer program has migrated it.
    """
    async with Database(engine).changing_tables() as connection:
        await connection.run_sync(_upgrade, to)


async def standing(engine: AsyncEngine) -> Standing:
    """Return where the tables stand, and what is missing.

    Raises:
        StoreUnavailableError: the database cannot be reached or does not answer.
        ConfigurationError: a newer program has migrated it.
    """
    with mapped(only_ours=True):
        async with Database(engine).engine.connect() as connection:
            return await connection.run_sync(_standing)


async def rehearse(engine: AsyncEngine) -> list[str]:
    """Migrate, roll it back, and return the statements that change something.

    So it is known to succeed, and it takes the locks of a migration for as long as one takes.

    Raises:
        StoreUnavailableError: the database cannot be reached, does not answer, or refuses a statement.
        ConfigurationError: a newer program has migrated it.
    """
    statements: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if not _LOOKING.match(statement):
            statements.append(statement.strip())

    with suppress(_RehearsedError):
        async with Database(engine).changing_tables() as connection:
            event.listen(connection.sync_connection, "before_cursor_execute", note)
            await connection.run_sync(_upgrade, "head")
            raise _RehearsedError
    return statements


class _RehearsedError(Exception):
    """Ends a rehearsal: everything is undone."""


def _upgrade(connection: Connection, to: str) -> None:
    _standing(connection)
    command.upgrade(config_for(connection), to)


def _standing(connection: Connection) -> Standing:
    script = ScriptDirectory.from_config(config_for())
    steps = [Step(version=each.revision, title=each.doc) for each in script.walk_revisions()][::-1]
    versions = [step.version for step in steps]
    current = MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE}).get_current_revision()
    if current is not None and current not in versions:
        raise ConfigurationError(
            f"the database has version {current} of the store's tables, this program knows {versions[-1]} at most: a "
            "newer release of `messaging` has migrated it; update this program"
        )
    done = 0 if current is None else versions.index(current) + 1
    return Standing(current=current, newest=versions[-1], pending=tuple(steps[done:]))
