"""What a service needs at the broker, with delay levels or without: the same for `show`, `apply` and `export`."""

from collections.abc import Iterable
from typing import Annotated

import typer

from messaging.core.delays import delay_topology
from messaging.core.topology import Names, Topology
from messaging.service import Service

__all__ = ["WithDelays", "delayed_services", "wanted_of"]

WithDelays = Annotated[
    bool,
    typer.Option(
        "--delays", help="Also the delay levels of services that handle commands, for senders without a store."
    ),
]


def delayed_services(services: Iterable[Service], *, delays: bool) -> list[str]:
    """Return the services that have delay levels if anybody does: those that handle commands."""
    return [service.name for service in services if delays and service.subscriptions.commands]


def wanted_of(service: Service, names: Names, *, delays: bool) -> Topology:
    """Return what should exist for a service.

    Args:
        service: The service.
        names: The namespace.
        delays: Whether it has delay levels.
    """
    wanted = names.of_service(service.name, service.subscriptions)
    for name in delayed_services([service], delays=delays):
        wanted += delay_topology(names, name)
    return wanted
