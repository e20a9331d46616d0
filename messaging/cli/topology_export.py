"""`messaging topology export`: what a broker needs to know beforehand, as files that RabbitMQ imports.

The topology itself, or the users with the least rights that services and operators need, from the services' own
contracts and, where a trust bundle is named, from its policy.
"""

import secrets
import shlex
from collections.abc import Iterable, Sequence
from enum import Enum
from pathlib import Path
from typing import Annotated, Final

import typer

from messaging.cli.exits import UsageError
from messaging.cli.load import load_service
from messaging.cli.render import plain_line, print_json
from messaging.cli.topology_wanted import WithDelays, delayed_services, wanted_of
from messaging.cli.trust import read_bundle
from messaging.core.envelope import Kind
from messaging.core.names import is_operator
from messaging.core.permissions import (
    SALT_BYTES,
    Account,
    Sends,
    ctl_commands,
    definitions,
    operator_account,
    password_hash,
    service_account,
    topology_account,
)
from messaging.core.topology import Declares, Names, Topology
from messaging.security.bundle import TrustBundle
from messaging.security.private_files import read_private, write_file
from messaging.service import Service

__all__ = ["export"]

_PASSWORD_BYTES: Final = 24


class Format(Enum):
    """How the accounts are written."""

    DEFINITIONS = "definitions"
    RABBITMQCTL = "rabbitmqctl"


class Declarer(Enum):
    """Who declares the services' own queues and exchanges."""

    REPLIES = "replies"
    OWN = "own"


def export(
    *,
    sources: Annotated[
        list[str],
        typer.Option("--from", metavar="MODULE:SERVICE", help="A service; repeat for several.", show_default=False),
    ],
    permissions: Annotated[bool, typer.Option("--permissions", help="Users and rights, not the topology.")] = False,
    delays: WithDelays = False,
    namespace: Annotated[
        str | None, typer.Option(help="Default: that of the service's settings.", show_default=False)
    ] = None,
    vhost: Annotated[str, typer.Option(help="The virtual host.")] = "/",
    form: Annotated[Format, typer.Option("--format", help="Definitions to import, or lines for a shell.")] = (
        Format.DEFINITIONS
    ),
    declare: Annotated[
        Declarer,
        typer.Option(help="What services make: their reply queues alone, or all of their own (MESSAGING_DECLARE)."),
    ] = Declarer.REPLIES,
    operators: Annotated[
        list[str] | None, typer.Option("--operator", help="ops:<name>; default: those of the bundle, if one is named.")
    ] = None,
    trust: Annotated[
        Path | None,
        typer.Option(help="Keys folder: its bundle narrows who may send, and replay, what.", show_default=False),
    ] = None,
    topology_user: Annotated[str, typer.Option(help="The account for `messaging topology apply`.")] = "topology",
    user_prefix: Annotated[str, typer.Option(help="Stands before every user's name.")] = "",
    passwords: Annotated[
        Path | None,
        typer.Option(help="File of passwords, USER=PASSWORD; made and completed with random ones.", show_default=False),
    ] = None,
    hashes: Annotated[
        list[str] | None,
        typer.Option("--password-hash", metavar="USER=HASH", help="As RabbitMQ hashes it; repeat for several."),
    ] = None,
) -> None:
    """Print what RabbitMQ needs to know beforehand: the topology, or users with the least rights they need.

    Users without a password can log in with a client certificate alone, whose common name is the user.

    Example: [bold]messaging topology export --permissions --from services.orders:orders > rights.json[/bold]
    """
    services = [load_service(source) for source in sources]
    names = services[0].settings.names
    if namespace is not None:
        names = Names(namespace, names.has_replicated_requests)
    if not permissions:
        _print_topology(_total(names, services, delays=delays), vhost=vhost, form=form)
        return
    bundle = None if trust is None else read_bundle(trust)
    named = operators if operators is not None or bundle is None else list(bundle.operators)
    delayed = delayed_services(services, delays=delays)
    total = _total(names, services, delays=delays)
    accounts = [topology_account(names, total, user_prefix + topology_user)]
    accounts += [
        service_account(
            names,
            service.name,
            service.subscriptions,
            declares=Declares(declare.value),
            sends=_sends(bundle, service.name),
            delays=delayed,
            prefix=user_prefix,
        )
        for service in services
    ]
    accounts += _operators(names, named or [], services, bundle, delays=delayed, prefix=user_prefix)
    _require_distinct(accounts)
    if form is Format.RABBITMQCTL:
        _print_commands(accounts, vhost=vhost, passwords=passwords, hashes=hashes)
    else:
        print_json(definitions(accounts, vhost=vhost, hashes=_hashes(accounts, passwords, hashes or [])))


def _total(names: Names, services: Iterable[Service], *, delays: bool) -> Topology:
    total = names.shared()
    for service in services:
        total += wanted_of(service, names, delays=delays)
    return total


def _print_topology(total: Topology, *, vhost: str, form: Format) -> None:
    if form is Format.RABBITMQCTL:
        raise UsageError("rabbitmqctl makes no queues: leave --format out, or use `messaging topology apply`")
    every = {"vhost": vhost, "durable": True, "auto_delete": False}
    print_json(
        {
            "exchanges": [
                {"name": e.name, "type": e.type, "internal": False, "arguments": e.arguments, **every}
                for e in total.exchanges
            ],
            "queues": [{"name": q.name, "arguments": dict(q.arguments), **every} for q in total.queues],
            "bindings": [
                {
                    "source": b.exchange,
                    "vhost": vhost,
                    "destination": b.queue,
                    "destination_type": "queue",
                    "routing_key": b.routing_key,
                    "arguments": {},
                }
                for b in total.bindings
            ],
        }
    )


def _operators(
    names: Names,
    operators: Iterable[str],
    services: Iterable[Service],
    bundle: TrustBundle | None,
    *,
    delays: Sequence[str],
    prefix: str,
) -> list[Account]:
    consuming = [service.name for service in services if not service.subscriptions.is_empty]
    accounts = []
    for operator in operators:
        if not is_operator(operator):
            raise UsageError(f"{operator!r} is no operator: write ops:<name>, such as ops:alice")
        granted = [service for service in consuming if _may_replay(bundle, operator, service)]
        sends = _sends(bundle, operator)
        accounts.append(operator_account(names, operator, granted, sends=sends, delays=delays, prefix=prefix))
    return accounts


def _sends(bundle: TrustBundle | None, identity: str) -> Sends | None:
    if bundle is None:
        return None
    rules = [rule for rule in bundle.policy.rules if rule.sender == identity]
    commands, requests, events = (
        frozenset(rule.name for rule in rules if rule.kind is kind) for kind in (Kind.COMMAND, Kind.REQUEST, Kind.EVENT)
    )
    return Sends(commands=commands, requests=requests, events=events)


def _may_replay(bundle: TrustBundle | None, operator: str, service: str) -> bool:
    return bundle is None or any(grant.operator == operator and grant.to == service for grant in bundle.policy.replay)


def _require_distinct(accounts: Sequence[Account]) -> None:
    users = [account.user for account in accounts]
    twice = sorted({user for user in users if users.count(user) > 1})
    if twice:
        raise UsageError(f"two accounts would be the user {twice[0]!r}: name each service once, or use --topology-user")


def _print_commands(
    accounts: Sequence[Account], *, vhost: str, passwords: Path | None, hashes: Sequence[str] | None
) -> None:
    if hashes:
        raise UsageError("rabbitmqctl of RabbitMQ 3.10 takes no hashes: leave --format out, or name --passwords")
    if passwords is not None:
        _passwords(passwords, [account.user for account in accounts])
    for command in ctl_commands(accounts, vhost=vhost):
        text = shlex.join(("rabbitmqctl", *command))
        if command[0] == "add_user" and passwords is not None:
            # Over a pipe: an argument could be read in the list of processes.
            wanted = command[1].replace(".", r"\.")
            text = f"{shlex.join(('sed', '-n', f's/^{wanted}=//p', str(passwords)))} | {text}"
        plain_line(text)


def _hashes(accounts: Sequence[Account], passwords: Path | None, given: Sequence[str]) -> dict[str, str]:
    users = {account.user for account in accounts}
    found = {} if passwords is None else _hashed(_passwords(passwords, [account.user for account in accounts]))
    for text in given:
        user, _, hashed = text.partition("=")
        if user not in users or not hashed:
            raise UsageError(f"--password-hash takes USER=HASH of one of these users: {', '.join(sorted(users))}")
        found[user] = hashed
    return found


def _passwords(path: Path, users: Sequence[str]) -> dict[str, str]:
    """Return everybody's password; those that the file lacks are made up and written to it."""
    content = read_private(path).decode() if path.exists() else ""
    found = {
        user: password for user, equals, password in (line.partition("=") for line in content.splitlines()) if equals
    }
    fresh = {user: secrets.token_urlsafe(_PASSWORD_BYTES) for user in users if not found.get(user)}
    if fresh:
        lines = [f"{user}={password}\n" for user, password in (found | fresh).items()]
        write_file(path, "".join(lines).encode(), replace=True)
    return {user: (found | fresh)[user] for user in users}


def _hashed(passwords: dict[str, str]) -> dict[str, str]:
    return {user: password_hash(password, salt=secrets.token_bytes(SALT_BYTES)) for user, password in passwords.items()}
