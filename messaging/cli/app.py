"""`main`: puts the verbs together and turns every expected failure into one line and a documented exit code.

A defect keeps its traceback: it is what its finder needs. `--debug` shows the traceback of expected failures too.
"""

import sys
from importlib.metadata import version
from io import TextIOWrapper
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from messaging.cli import (
    audit,
    broker,
    dead,
    doctor,
    evidence,
    health,
    inspect,
    keys,
    policy,
    run,
    schedules,
    send,
    store,
    topology,
    trust,
)
from messaging.cli.exits import exit_of, known_error
from messaging.cli.logs import verb_logs
from messaging.cli.render import line, problem
from messaging.errors import MessagingError

__all__ = ["app", "main"]


class Guarded(TyperGroup):
    """The root group: explains expected errors instead of showing where they were raised."""

    def invoke(self, ctx: Any) -> Any:
        """Run the verb; an expected error becomes one line on stderr and an exit code."""
        try:
            return super().invoke(ctx)
        # A closed pipe (`… | head`) is no failure of ours: typer ends quietly on it.
        except BrokenPipeError:
            raise
        except (MessagingError, OSError, ExceptionGroup) as error:
            known = known_error(error)
            if known is None or ctx.params.get("debug"):
                raise
            problem(_words_of(known))
            raise typer.Exit(exit_of(known)) from None


app = typer.Typer(
    name="messaging",
    cls=Guarded,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Signed, encrypted messages between services over RabbitMQ.\n\n"
    "Settings come from the environment: [bold]MESSAGING_BROKER_URL[/bold] says which broker, "
    "[bold]MESSAGING_KEYS[/bold] which folder holds the keys.",
    epilog="Something is wrong: [bold]messaging doctor[/bold]. "
    "Every verb explains itself: [bold]messaging dead replay --help[/bold].",
)


def _show_version(is_wanted: bool) -> None:
    if is_wanted:
        line(f"messaging {version('messaging')}")
        raise typer.Exit


@app.callback()
def root(
    ctx: typer.Context,
    *,
    show_version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", is_eager=True, callback=_show_version)
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of a failure.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Show log lines, on stderr.")] = False,
    log_file: Annotated[
        Path | None,
        typer.Option(help="Append log lines to this file: the record of replays and discards.", show_default=False),
    ] = None,
) -> None:
    """Take the options that stand before the verb."""
    ctx.with_resource(verb_logs(is_verbose=verbose, file=log_file))


def main() -> None:
    """Run the command line; the entry point of the `messaging` program."""
    for stream in (sys.stdout, sys.stderr):
        # A terminal that cannot show a character gets its escape; it must not end the program. Line by line, because
        # what a handler prints in a container is wanted when it happens.
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace", line_buffering=True)
    app(prog_name="messaging")


def _words_of(error: MessagingError | OSError) -> str:
    if isinstance(error, OSError) and error.strerror:
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{error.strerror}; `messaging doctor` looks at files, broker and keys"
    return str(error)


# The order of the help: what a newcomer needs first.
app.command("run")(run.run)
app.command("send")(send.send)
app.command("publish")(send.publish)
app.command("request")(send.request)
app.add_typer(dead.app, name="dead")
app.add_typer(audit.app, name="audit")
app.add_typer(schedules.app, name="schedules")
app.add_typer(store.app, name="store")
app.add_typer(keys.app, name="keys")
app.add_typer(trust.app, name="trust")
app.add_typer(policy.app, name="policy")
app.command("inspect")(inspect.inspect)
app.command("open")(inspect.open_)
app.command("reveal")(inspect.reveal)
app.add_typer(evidence.app, name="evidence")
app.add_typer(topology.app, name="topology")
app.add_typer(broker.app, name="broker")
app.command("health")(health.health)
app.command("doctor")(doctor.doctor)
