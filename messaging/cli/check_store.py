"""Looks at a service's durable store: does it answer, are its tables the newest, is it wide enough, who fills it."""

from collections.abc import AsyncIterator

from messaging.cli.finding import Finding, failed, fine, warned
from messaging.cli.render import counted
from messaging.errors import ConfigurationError
from messaging.runtime.inbox_rows import HOUR_S
from messaging.service import Service
from messaging.settings import Settings
from messaging.stores.base import Store, StoreUnavailableError

__all__ = ["check_store"]


async def check_store(service: Service, settings: Settings) -> AsyncIterator[Finding]:
    """Yield what is known of a service's database; nothing when it has none, or one that is not of this library."""
    check = f"{service.name} store"
    try:
        async with service.opened_store() as store:
            if store is not None:
                async for finding in _examined(check, service.name, store, settings):
                    yield finding
    except (StoreUnavailableError, OSError) as error:
        yield failed(check, str(error), remedy="start the database, or mend its URL in the service's settings")
    except ConfigurationError as error:
        yield failed(check, str(error), remedy="see above")


async def _examined(check: str, service: str, store: Store, settings: Settings) -> AsyncIterator[Finding]:
    # Of the extra `sql`, which a service with such a store has, and slow to import.
    from messaging.stores.sql import SqlStore, migrations  # noqa: PLC0415

    if not isinstance(store, SqlStore):
        return
    if store.connections is not None and store.connections < settings.prefetch:
        words = f"{store.connections} connections for up to {settings.prefetch} handlers at once: the others wait"
        yield warned(check, words, remedy="give the engine a larger pool_size, or lower MESSAGING_PREFETCH")
    standing = await migrations.standing(store.engine)
    if standing.pending:
        known = "no version is recorded" if standing.current is None else f"version {standing.current}"
        words = f"tables: {known}, the newest is {standing.newest}"
        yield warned(check, words, remedy="run `messaging store migrate`")
        return
    yield fine(check, f"tables of version {standing.current}, the newest")
    senders = await store.inbox_rows(service, within_s=HOUR_S)
    crowding = {sender: rows for sender, rows in senders.items() if rows > settings.inbox_alarm_rows}
    for sender, rows in crowding.items():
        words = f"{sender} has added {counted(rows, 'row')} to the inbox within an hour"
        yield warned(check, words, remedy="find out what it does; `messaging trust revoke` if its key was stolen")
    if not crowding:
        most = next((f"{sender} {counted(rows, 'row')}" for sender, rows in senders.items()), "nothing came")
        yield fine(check, f"inbox within an hour, the most: {most}")
