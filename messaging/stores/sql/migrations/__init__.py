"""Brings the library's tables up to date, with Alembic; the versions stand beside this file.

Its own version table leaves an application's migrations alone. An application that prefers one history includes
`messaging.stores.sql.metadata` in its own instead.
"""

from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection
from sqlalchemy.ext.asyncio import AsyncEngine

from messaging.stores.sql.database import Database

__all__ = ["VERSION_TABLE", "config_for", "migrate"]

VERSION_TABLE = "messaging_store_version"


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
    """
    async with Database(engine).changing_tables() as connection:
        await connection.run_sync(lambda sync: command.upgrade(config_for(sync), to))
