"""`messaging broker up/down/status`: a RabbitMQ for development.

Docker Compose when an engine answers and a Compose file is here, else a private node of the installed
`rabbitmq-server`.
"""

import json
import shlex
from pathlib import Path
from typing import Annotated

import typer

from messaging.cli.broker_compose import ComposeBroker
from messaging.cli.broker_install import ensure_server
from messaging.cli.broker_node import PrivateNode

__all__ = ["app"]

app = typer.Typer(help="A RabbitMQ for development: Docker Compose, or a private node.", no_args_is_help=True)

_DEFAULT_FOLDER = Path(".broker")
# Not RabbitMQ's own 5672, which a system broker may hold.
_DEFAULT_PORT = 5673

_Folder = Annotated[Path, typer.Option("--folder", help="Home of the private node: its data, log and process ids.")]


@app.command()
def up(
    *,
    folder: _Folder = _DEFAULT_FOLDER,
    port: Annotated[int, typer.Option(help="AMQP port of the private node.", min=1, max=65535)] = _DEFAULT_PORT,
    install: Annotated[
        bool, typer.Option("--install/--no-install", help="Install rabbitmq-server when missing (root on Debian).")
    ] = True,
    docker: Annotated[
        bool, typer.Option("--docker/--no-docker", help="Use Docker Compose where an engine answers.")
    ] = True,
) -> None:
    """Start a broker in the background and print its address."""
    node = PrivateNode.recorded(folder)
    if node is not None and node.is_running:
        node.start()
        _show(node.url, where=f"private node in {folder}", folder=folder)
        return
    compose = ComposeBroker.found(Path.cwd()) if docker else None
    if compose is not None:
        compose.start()
        _show(compose.url, where=f"service rabbitmq of {compose.file.name}")
        return
    ensure_server(typer.echo, install=install)
    node = PrivateNode(folder, port=port, name="development")
    node.start(detached=True)
    _show(node.url, where=f"private node in {folder}", folder=folder)


@app.command()
def down(*, folder: _Folder = _DEFAULT_FOLDER) -> None:
    """Stop the broker that `up` started. Its data stay."""
    node = PrivateNode.recorded(folder)
    if node is not None and node.is_running:
        node.stop()
        typer.echo(f"Stopped the private node in {folder}. Its data stay there.")
        return
    compose = ComposeBroker.found(Path.cwd())
    if compose is not None and compose.is_ready:
        compose.stop()
        typer.echo(f"Stopped the service rabbitmq of {compose.file.name}. Its volume stays.")
        return
    typer.echo("No broker of ours runs here.")


@app.command()
def status(
    *,
    folder: _Folder = _DEFAULT_FOLDER,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Say whether the broker runs and where. Exit code 1 when it does not."""
    url, kind, pid = None, None, None
    node = PrivateNode.recorded(folder)
    if node is not None and node.is_ready:
        url, kind, pid = node.url, "private node", node.pid
    else:
        compose = ComposeBroker.found(Path.cwd())
        if compose is not None and compose.is_ready:
            url, kind = compose.url, "compose"
    if as_json:
        typer.echo(json.dumps({"running": url is not None, "url": url, "kind": kind, "pid": pid}))
    elif url is not None:
        typer.echo(f"Running ({kind}{'' if pid is None else f', process {pid}'}): {url}")
    else:
        typer.echo("Not running. Start one with `messaging broker up`.")
    if url is None:
        raise typer.Exit(1)


def _show(url: str, *, where: str, folder: Path = _DEFAULT_FOLDER) -> None:
    option = "" if folder == _DEFAULT_FOLDER else f" --folder {shlex.quote(str(folder))}"
    typer.echo(f"RabbitMQ is ready: {where}")
    typer.echo(f"  export MESSAGING_BROKER_URL={url}")
    typer.echo(f"  stop it with: messaging broker down{option}")
