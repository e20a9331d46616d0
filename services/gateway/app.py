"""Builds the gateway's web application around a service that is a mere client of the others.

HTTP is answered from the first moment: while the broker is away, calls get 503 and `/readyz` says why.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from fastapi import FastAPI

from messaging import MessagingError, Service
from services.gateway.handlers import Door, router
from services.gateway.problems import add_problem_handlers
from services.gateway.settings import GatewaySettings

__all__ = ["create_app"]


def create_app(
    service: Service, settings: GatewaySettings, *, on_failure: Callable[[MessagingError], None] | None = None
) -> FastAPI:
    """Return the web application; it opens the service when it starts and drains it when it stops.

    Args:
        service: A client of the services behind the gateway.
        settings: The gateway's own.
        on_failure: Told when the service can never be opened, such as for want of keys.
    """
    door = Door(service=service, settings=settings)

    async def open_door() -> None:
        try:
            await service.start(wait_forever=True)
        except MessagingError as error:
            door.problem = str(error)
            if on_failure is not None:
                on_failure(error)
        else:
            door.problem = None

    @asynccontextmanager
    async def opened(_app: FastAPI) -> AsyncIterator[None]:
        async with asyncio.TaskGroup() as group:
            opening = group.create_task(open_door())
            yield
            opening.cancel()
        await service.stop()

    app = FastAPI(title="Gateway", summary="Users and orders over HTTP", version="1", lifespan=opened)
    app.state.door = door
    app.include_router(router)
    add_problem_handlers(app)
    return app
