"""`messaging run`: a service in this process, or in N worker processes under a supervisor.

It is the one place that configures logs: the library only writes them.
"""

import asyncio
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Annotated

import typer

from messaging.cli.exits import UsageError
from messaging.cli.health_server import serving_health
from messaging.cli.load import load_service
from messaging.cli.logs import LogFormat, LogLevel, configure_logs
from messaging.cli.supervisor import Supervisor, worker_command
from messaging.cli.watch import SourceWatch
from messaging.service import Service

__all__ = ["run"]


def run(
    target: Annotated[
        str,
        typer.Argument(metavar="MODULE:NAME", help="The service, such as services.orders:orders.", show_default=False),
    ],
    *,
    workers: Annotated[int, typer.Option(help="How many processes; they share the work.", min=1, max=256)] = 1,
    log_format: Annotated[
        LogFormat | None,
        typer.Option(help="How log lines look; without it: console at a terminal, else json.", show_default=False),
    ] = None,
    log_level: Annotated[LogLevel, typer.Option(help="The least important lines to write.")] = LogLevel.INFO,
    health_port: Annotated[
        int | None,
        typer.Option(
            help="Serve /healthz and /readyz on this port; worker k of several serves on this port + k.",
            min=1,
            max=65_535,
            show_default=False,
        ),
    ] = None,
    reload: Annotated[
        bool, typer.Option("--reload", help="Start again whenever a .py file below this folder changes (development).")
    ] = False,
    worker: Annotated[int | None, typer.Option(hidden=True)] = None,
    lifeline: Annotated[int | None, typer.Option(hidden=True)] = None,
) -> None:
    """Run a service until SIGTERM or Ctrl-C, which drain it; a second one stops it at once.

    While the broker is away the service waits for it, warns every 5 seconds, and goes on by itself.

    Exit codes: 0 drained; 1 a worker had to be killed; 2 a mistake in code, settings or keys; 4 refused by trust.
    A second signal ends a single process by that signal.

    Example: [bold]messaging run services.orders:orders --workers 4 --health-port 8081[/bold]
    """
    format_ = log_format or (LogFormat.CONSOLE if sys.stderr.isatty() else LogFormat.JSON)
    configure_logs(format_, log_level, worker=worker if lifeline is not None else None)
    if lifeline is None and (workers > 1 or reload):
        _check_ports(health_port, workers)
        raise typer.Exit(
            _supervise(target, format_, log_level, workers=workers, health_port=health_port, reload=reload)
        )
    if lifeline is not None:
        _end_with_supervisor(lifeline)
    asyncio.run(_serve(load_service(target), health_port))


async def _serve(service: Service, health_port: int | None) -> None:
    if health_port is None:
        await service.serve()
        return
    async with serving_health(lambda: service.health, health_port):
        await service.serve()


def _supervise(
    target: str, format_: LogFormat, level: LogLevel, *, workers: int, health_port: int | None, reload: bool
) -> int:
    # A misspelt target is one clear line here instead of one from each worker. With --reload the file may be mended.
    if not reload:
        load_service(target)
    commands = [
        worker_command(
            [
                *("run", target, "--log-format", format_.value, "--log-level", level.value, "--worker", str(number)),
                *(() if health_port is None else ("--health-port", str(health_port + number))),
            ]
        )
        for number in range(workers)
    ]
    watch = SourceWatch(Path.cwd()) if reload else None
    return asyncio.run(_run_supervisor(commands, watch))


async def _run_supervisor(commands: list[list[str]], watch: SourceWatch | None) -> int:
    return await Supervisor(commands, watch=watch).run()


def _check_ports(health_port: int | None, workers: int) -> None:
    if health_port is not None and health_port + workers - 1 > 65_535:
        raise UsageError(f"--health-port {health_port} leaves no ports for {workers} workers: choose a lower one")


def _end_with_supervisor(descriptor: int) -> None:
    """Drain as on SIGTERM when the supervisor is gone, however it ended: its end of the pipe closes with it."""

    def wait() -> None:
        # Nothing is ever written: the read returns when the last writer is gone.
        os.read(descriptor, 1)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, name="lifeline", daemon=True).start()
