"""`messaging topology`: what a service needs at the broker; shown, made to exist, or exported with the rights it takes.

Services declare it themselves when they start. `apply` is for installations where only an operator's account may.
"""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from messaging.cli.exits import Exit, UsageError
from messaging.cli.link import connected
from messaging.cli.load import load_service
from messaging.cli.render import line, print_json, table
from messaging.cli.topology_compare import (
    Comparison,
    compare,
    comparison_record,
    recorded_bindings,
    show_comparison,
)
from messaging.cli.topology_export import export
from messaging.cli.topology_wanted import WithDelays, wanted_of
from messaging.core.partition import check_partitions
from messaging.core.topology import Binding, Topology
from messaging.service import Service

__all__ = ["app"]

app = typer.Typer(
    help="Exchanges, queues and bindings: what should exist.", no_args_is_help=True, rich_markup_mode="rich"
)

_Targets = Annotated[
    list[str],
    typer.Argument(metavar="MODULE:SERVICE...", help="Such as services.orders:orders.", show_default=False),
]


_Recorded = Annotated[
    Path | None,
    typer.Option(
        "--recorded",
        metavar="FILE",
        help="What `topology show --json` printed for the version before; for brokers without management API.",
        show_default=False,
    ),
]


@app.command()
def show(
    targets: _Targets,
    *,
    delays: WithDelays = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Show what the services need at the broker, without asking it.

    Example: [bold]messaging topology show services.orders:orders[/bold]
    """
    total = _topology_of([load_service(target) for target in targets], delays=delays)
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
def plan(
    targets: _Targets,
    *,
    delays: WithDelays = False,
    recorded: _Recorded = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Say what `apply` would do: what is missing, what differs argument by argument, what no handler needs any more.

    Changes nothing. Exit codes: 0 nothing to do, 1 something is not as wanted, 3 no broker.

    Example: [bold]messaging topology plan services.orders:orders[/bold]
    """
    services = [load_service(target) for target in targets]
    comparison = asyncio.run(_compared(services, recorded, delays=delays))
    if as_json:
        print_json(comparison_record(comparison))
    else:
        show_comparison(comparison)
    raise typer.Exit(Exit.OK if comparison.plan.is_empty else Exit.FAILURE)


@app.command()
def apply(
    targets: _Targets,
    *,
    delays: WithDelays = False,
    partitions_before: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="The number of partitions until now, 0 for none: its bindings are taken away (docs/evolution.md).",
            show_default=False,
        ),
    ] = None,
    prune: Annotated[
        bool, typer.Option("--prune", help="Take away bindings that no handler needs any more. Never a queue.")
    ] = False,
    recorded: _Recorded = None,
    audit: Annotated[
        bool, typer.Option("--audit", help="Make the audit stream too: records of replays and discards.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what it would do, as `plan`, and do nothing.")
    ] = False,
) -> None:
    """Make exist at the broker what the services need. What is there already stays as it is.

    Nothing is taken away but bindings, and those by `--prune` and `--partitions-before` alone.

    Exit codes: 0 done, 1 something exists with other arguments (both are shown), 3 no broker; of --dry-run those of
    `plan`.

    Example: [bold]messaging topology apply services.users:users services.orders:orders[/bold]
    """
    services = [load_service(target) for target in targets]
    if dry_run:
        _rehearse(services, recorded, partitions_before, delays=delays)
    surplus = asyncio.run(_compared(services, recorded, delays=delays)).surplus if prune else ()
    if prune and recorded is None and all(service.settings.management_url is None for service in services):
        raise UsageError(
            "--prune must know which bindings there are: set MESSAGING_MANAGEMENT_URL, or name with --recorded what "
            "`messaging topology show --json` printed for the version before"
        )
    for service in services:
        wanted = _topology_of([service], delays=delays) + (
            service.settings.names.audit_trail() if audit else Topology()
        )
        stale = () if partitions_before is None else _stale(service, wanted, partitions_before)
        asyncio.run(_apply(service, wanted, stale))
        line(
            f"{service.name}: {len(wanted.exchanges)} exchanges, {len(wanted.queues)} queues and "
            f"{len(wanted.bindings)} bindings exist"
        )
        if stale:
            line(f"{service.name}: {len(stale)} bindings of {partitions_before} partitions are gone")

    if surplus:
        asyncio.run(_pruned(services[0], surplus))
        for binding in surplus:
            line(f"gone: binding of queue {binding.queue} to exchange {binding.exchange} by {binding.routing_key}")


app.command()(export)


def _rehearse(
    services: list[Service], recorded: Path | None, partitions_before: int | None, *, delays: bool
) -> NoReturn:
    comparison = asyncio.run(_compared(services, recorded, delays=delays))
    show_comparison(comparison)
    for service in services if partitions_before is not None else ():
        for binding in _stale(service, comparison.wanted, partitions_before or 0):
            line(f"- binding of queue {binding.queue} to exchange {binding.exchange} by {binding.routing_key} would go")
    raise typer.Exit(Exit.OK if comparison.plan.is_empty else Exit.FAILURE)


async def _compared(services: list[Service], recorded: Path | None, *, delays: bool) -> Comparison:
    settings = services[0].settings
    if settings.is_embedded:
        raise UsageError("the embedded broker has no topology outside its process; set MESSAGING_BROKER_URL")
    bindings = None if recorded is None else recorded_bindings(recorded)
    return await compare(settings, services, _topology_of(services, delays=delays), recorded=bindings)


async def _pruned(service: Service, surplus: Sequence[Binding]) -> None:
    async with connected(service.settings, name="topology apply") as transport:
        await transport.unbind(surplus)


def _topology_of(services: list[Service], *, delays: bool) -> Topology:
    total = Topology()
    for service in services:
        total += wanted_of(service, service.settings.names, delays=delays)
    return total


def _stale(service: Service, wanted: Topology, partitions_before: int) -> tuple[Binding, ...]:
    """Return the bindings of another number of partitions: with them each command with a key would have two queues."""
    before = check_partitions(partitions_before) if partitions_before else None
    bindings = service.settings.names.slot_bindings(service.name, service.subscriptions.keyed, before)
    return tuple(binding for binding in bindings if binding not in wanted.bindings)


async def _apply(service: Service, wanted: Topology, stale: Sequence[Binding]) -> None:
    settings = service.settings
    if settings.is_embedded:
        raise UsageError(
            f"service {service.name!r} uses the embedded broker, which has no topology outside its process; "
            "set MESSAGING_BROKER_URL to a real one"
        )
    async with connected(settings, name="topology apply") as transport:
        await transport.declare(wanted)
        await transport.unbind(stale)


def _record(total: Topology) -> dict[str, object]:
    return {
        "exchanges": [{"name": e.name, "type": e.type, "arguments": e.arguments} for e in total.exchanges],
        "queues": [{"name": q.name, "arguments": dict(q.arguments)} for q in total.queues],
        "bindings": [{"exchange": b.exchange, "queue": b.queue, "routing_key": b.routing_key} for b in total.bindings],
    }
