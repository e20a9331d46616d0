"""`messaging doctor`: looks at everything that must be right for messages to flow, with a remedy for what is not."""

import asyncio
from collections.abc import Sequence
from typing import Annotated, Final

import typer

from messaging.ambient import real_ambient
from messaging.cli.check_broker import check_broker, check_queues
from messaging.cli.check_clock import check_clock
from messaging.cli.check_dead_age import check_dead_age
from messaging.cli.check_keys import KeyCheck
from messaging.cli.check_ladders import check_delays, check_stuck
from messaging.cli.check_policies import check_policies
from messaging.cli.check_store import check_store
from messaging.cli.check_tls import check_tls
from messaging.cli.check_topology import check_comparison, check_management
from messaging.cli.dead_select import age_s
from messaging.cli.finding import Finding, State, failed, fine, worst
from messaging.cli.link import connected
from messaging.cli.load import load_service
from messaging.cli.management import management_of
from messaging.cli.render import line, print_json, text
from messaging.cli.topology_compare import compare
from messaging.cli.topology_wanted import WithDelays, wanted_of
from messaging.core.delays import delay_topology
from messaging.errors import ConfigurationError, MessagingError
from messaging.service import Service
from messaging.settings import Settings
from messaging.transports.amqp.errors import Node

__all__ = ["doctor"]

_STYLES: Final = {State.OK: "green", State.WARN: "yellow", State.FAIL: "bold red"}


def doctor(
    *,
    sources: Annotated[
        list[str] | None,
        typer.Option("--from", metavar="MODULE:SERVICE", help="Look at this service's queues too; repeat for several."),
    ] = None,
    dead_age: Annotated[
        str | None,
        typer.Option(
            "--dead-age",
            metavar="AGE",
            help="Warn of dead letters older than 1d, 12h, …; reads them all, so not every minute.",
            show_default=False,
        ),
    ] = None,
    delays: WithDelays = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Check settings, broker, keys, trust, clock, queues and what waits in them; each with its remedy.

    Exit codes, as monitoring plug-ins have them: 0 all well, 1 warnings, 2 something is broken.

    Example: [bold]messaging doctor --from services.orders:orders[/bold]
    """
    services = [load_service(source) for source in sources or ()]
    findings = _examine(services, None if dead_age is None else age_s(dead_age), delays=delays)
    state = worst(findings)
    if as_json:
        print_json({"state": state.word, "checks": [_record(finding) for finding in findings]})
    else:
        for finding in findings:
            _show(finding)
    raise typer.Exit(int(state))


def _examine(services: Sequence[Service], dead_age_s: float | None, *, delays: bool) -> list[Finding]:
    try:
        settings = Settings()
    except ConfigurationError as error:
        return [failed("settings", str(error), remedy="mend the environment")]
    findings = [fine("settings", _shown(settings))]
    keys = KeyCheck(settings=settings, ambient=real_ambient(), passphrase=_passphrase(settings, findings))
    findings += keys.findings()
    known = {service.name for service in services} | set(() if keys.bundle is None else keys.bundle.services)
    findings += asyncio.run(_examine_stores(settings, services))
    findings += asyncio.run(_examine_broker(settings, services, sorted(known), dead_age_s, delays=delays))
    return findings


async def _examine_stores(settings: Settings, services: Sequence[Service]) -> list[Finding]:
    return [finding for service in services async for finding in check_store(service, settings)]


async def _examine_broker(
    settings: Settings, services: Sequence[Service], known: Sequence[str], dead_age_s: float | None, *, delays: bool
) -> list[Finding]:
    if settings.is_embedded:
        return [fine("broker", "embedded (memory://): it lives inside one process, there is nothing to look at")]
    certificates = [finding async for finding in check_tls(settings, ambient=real_ambient())]
    findings = certificates + [finding async for finding in check_broker(settings)]
    if findings[-1].state is State.FAIL:
        return findings
    names = settings.names
    try:
        findings += _examine_management(settings, known)
        for service in services:
            findings += await _examine_topology(settings, service, delays=delays)
        async with connected(settings, name="doctor") as transport:
            findings += [finding async for finding in check_queues(transport, names, known)]
            if dead_age_s is not None:
                aged = check_dead_age(transport, names, known, limit_s=dead_age_s, ambient=real_ambient())
                findings += [finding async for finding in aged]
    except MessagingError as error:
        findings.append(failed("queues", str(error), remedy="mend what stands above first"))
    return findings


async def _examine_topology(settings: Settings, service: Service, *, delays: bool) -> list[Finding]:
    names = settings.names
    wanted = wanted_of(service, names, delays=False)
    findings = check_comparison(service.name, await compare(settings, [service], wanted, recorded=None), names)
    if service.subscriptions.commands:
        levels = await compare(settings, [service], delay_topology(names, service.name), recorded=None)
        findings += check_delays(service.name, levels, are_wanted=delays)
    return findings


def _examine_management(settings: Settings, known: Sequence[str]) -> list[Finding]:
    management = management_of(settings)
    if management is None:
        words = "not looked at, nor feature flags, stuck rungs and the broker's clock: AMQP does not tell them"
        return [fine("policies", f"{words}; MESSAGING_MANAGEMENT_URL would")]
    findings = check_management(management)
    if findings[0].state is not State.FAIL:
        findings += check_clock(management, real_ambient())
        queues, names = management.queues(), settings.names
        findings += check_policies(queues, management.ruled_exchanges(), names, known)
        findings += check_stuck(queues, names, known)
    return findings


def _passphrase(settings: Settings, findings: list[Finding]) -> bytes | None:
    if settings.passphrase_file is None:
        return None
    try:
        lines = settings.passphrase_file.read_bytes().splitlines()
    except OSError as error:
        findings.append(
            failed(
                "passphrase", f"{settings.passphrase_file}: {error.strerror}", remedy="mend MESSAGING_PASSPHRASE_FILE"
            )
        )
        return None
    return lines[0] if lines else b""


def _shown(settings: Settings) -> str:
    if settings.is_embedded:
        return f"broker memory://, namespace {settings.namespace}"
    addresses = ", ".join(Node.parse(url).address for url in settings.broker_urls)
    return f"broker {addresses}, namespace {settings.namespace}, keys {settings.keys or 'unset'}"


def _record(finding: Finding) -> dict[str, object]:
    return {
        "check": finding.check,
        "state": finding.state.word,
        "words": finding.words,
        "remedy": finding.remedy,
    }


def _show(finding: Finding) -> None:
    line(text(f"{finding.state.word:<5}", _STYLES[finding.state]), f" {finding.check}: {finding.words}")
    if finding.remedy is not None:
        line(text("       try: ", "dim"), finding.remedy)
