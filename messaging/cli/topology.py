"""`messaging topology`: what a service needs at the broker; shown, made to exist, or exported with the rights it takes.

Services declare it themselves when they start. `apply` is for installations where only an operator's account may.
"""

import asyncio
from typing import Annotated

import typer

from messaging.cli.exits import UsageError
from messaging.cli.link import connected
from messaging.cli.load import load_service
from messaging.cli.render import line, print_json, table
from messaging.cli.topology_export import export
from messaging.core.topology import Topology
from messaging.service import Service

__all__ = ["app"]

app = typer.Typer(
    help="Exchanges, queues and bindings: what should exist.", no_args_is_help=True, rich_markup_mode="rich"
)

_Targets = Annotated[
    list[str],
    typer.Argument(metavar="MODULE:SERVICE...", help="Such as services.orders:orders.", show_default=False),
]


@app.command()
def show(
    targets: _Targets, *, as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False
) -> None:
    """Show what the services need at the broker, without asking it.

    Example: [bold]messaging topology show services.orders:orders[/bold]
    """
    total = _topology_of([load_service(target) for target in targets])
    if as_json:
        print_json(_record(total))
        return
    table("Exchanges", ("NAME", "TYPE", "ALTERNATE"), [(e.name, e.type, e.alternate or "") for e in total.exchanges])
    table(
        "Queues",
        ("NAME", "ARGUMENTS"),
        [(q.name, " ".join(f"{key}={value}" for key, value in q.arguments.items())) for q in total.queues],
    )
    table(
        "Bindings",
        ("EXCHANGE", "QUEUE", "ROUTING KEY"),
        [(b.exchange, b.queue, b.routing_key) for b in total.bindings],
    )


@app.command()
def apply(targets: _Targets) -> None:
    """Make exist at the broker what the services need. What is there already stays as it is.

    Exit codes: 0 done, 1 something exists with other arguments (both are shown), 3 no broker.

    Example: [bold]messaging topology apply services.users:users services.orders:orders[/bold]
    """
    for service in [load_service(target) for target in targets]:
        wanted = asyncio.run(_apply(service))
        line(
            f"{service.name}: {len(wanted.exchanges)} exchanges, {len(wanted.queues)} queues and "
            f"{len(wanted.bindings)} bindings exist"
        )


app.command()(export)


def _topology_of(services: list[Service]) -> Topology:
    total = Topology()
    for service in services:
        total += service.settings.names.of_service(service.name, service.subscriptions)
    return total


async def _apply(service: Service) -> Topology:
    settings = service.settings
    if settings.is_embedded:
        raise UsageError(
            f"service {service.name!r} uses the embedded broker, which has no topology outside its process; "
            "set MESSAGING_BROKER_URL to a real one"
        )
    wanted = _topology_of([service])
    async with connected(settings, name="topology apply") as transport:
        await transport.declare(wanted)
    return wanted


def _record(total: Topology) -> dict[str, object]:
    return {
        "exchanges": [{"name": e.name, "type": e.type, "arguments": e.arguments} for e in total.exchanges],
        "queues": [{"name": q.name, "arguments": dict(q.arguments)} for q in total.queues],
        "bindings": [{"exchange": b.exchange, "queue": b.queue, "routing_key": b.routing_key} for b in total.bindings],
    }
