"""Builds the users service: registers users and answers questions about them."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from messaging import Service, Settings
from messaging.stores.sql import SqlStore
from services.database import open_store
from services.users.handlers import router
from services.users.settings import UsersSettings
from services.users.store import metadata

__all__ = ["create", "users"]


def create(settings: Settings | None = None, *, own: UsersSettings | None = None) -> Service:
    """Return a users service.

    Args:
        settings: Broker and keys; without them it reads the environment when it starts.
        own: The service's own settings; likewise.
    """

    @asynccontextmanager
    async def resources(_service: Service) -> AsyncIterator[SqlStore]:
        async with open_store((own or UsersSettings()).database_url, metadata) as store:
            yield store

    service = Service("users", settings, lifespan=resources)
    service.include(router)
    return service


users = create()
