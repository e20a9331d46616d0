"""Builds the orders service: places orders of registered users and answers questions about them."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from messaging import RemoteError, RetryPolicy, Service, Settings, UnroutableError
from messaging.stores.sql import SqlStore
from services.database import open_store
from services.orders.handlers import router
from services.orders.settings import OrdersSettings
from services.orders.store import metadata

__all__ = ["create", "orders"]


def create(
    settings: Settings | None = None,
    *,
    own: OrdersSettings | None = None,
    delays_s: tuple[float, ...] | None = None,
) -> Service:
    """Return an orders service.

    Args:
        settings: Broker and keys; without them it reads the environment when it starts.
        own: The service's own settings; likewise.
        delays_s: Rungs of the retry ladder, seconds; the library's own when left out.
    """

    @asynccontextmanager
    async def resources(_service: Service) -> AsyncIterator[tuple[SqlStore, OrdersSettings]]:
        read = own or OrdersSettings()
        async with open_store(read.database_url, metadata) as store:
            yield store, read

    service = Service("orders", settings, lifespan=resources, retry=_retry(delays_s))
    service.include(router)
    return service


def _retry(delays_s: tuple[float, ...] | None) -> RetryPolicy:
    # The users service may be absent or broken for a while: that says nothing against the order.
    passing = (UnroutableError, RemoteError)
    return RetryPolicy(transient=passing) if delays_s is None else RetryPolicy(delays_s=delays_s, transient=passing)


orders = create()
