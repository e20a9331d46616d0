"""Builds the gateway's service: a mere client of the others."""

from messaging import Service, Settings

__all__ = ["create", "gateway"]


def create(settings: Settings | None = None) -> Service:
    """Return the gateway's service, a client; without settings it reads the environment when it starts."""
    return Service("gateway", settings)


gateway = create()
