"""Looks at the broker: reachable, which version, does it take us, are the queues there, fed and empty of trouble."""

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from typing import Final, Protocol

from messaging.assembly import tls_of
from messaging.cli.finding import Finding, failed, fine, warned
from messaging.cli.greeting import greeting_of
from messaging.cli.link import connected
from messaging.cli.render import counted
from messaging.core.partition import PARTITIONS_MAX
from messaging.core.topology import Names
from messaging.errors import ConfigurationError, ConnectionLostError
from messaging.settings import Settings
from messaging.transports.amqp.errors import Node
from messaging.transports.base import LinkState, QueueDepth

__all__ = ["Depths", "check_broker", "check_queues"]

# What the conformance suite runs against (docs/topology.md, "What the versions do").
_OLDEST: Final = (3, 10)
_NEWEST: Final = (4, 3)
_WORK: Final = ("commands", "events", "requests", "faults")
_PROBE_TIMEOUT_S: Final = 5.0


class Depths(Protocol):
    """The part of a transport that these checks need."""

    async def depth(self, queue: str) -> QueueDepth | None:
        """Return what waits in a queue, or None when there is no such queue."""


async def check_broker(settings: Settings) -> AsyncGenerator[Finding, None]:
    """Yield whether the broker's nodes answer, which version they are, and whether the broker takes our user."""
    reachable = False
    for url in settings.broker_urls:
        address = Node.parse(url).address
        try:
            greeting = await greeting_of(
                url, timeout_s=min(settings.connect_timeout_s, _PROBE_TIMEOUT_S), tls=tls_of(settings)
            )
        except (ConnectionLostError, ConfigurationError) as error:
            yield failed(
                "broker", str(error), remedy="start one with `messaging broker up`, or mend MESSAGING_BROKER_URL"
            )
            continue
        reachable = True
        shown = f"{greeting.product} {greeting.version} at {address}"
        release = greeting.release
        if release is None or not _OLDEST <= release <= _NEWEST:
            yield warned("broker", shown, remedy="RabbitMQ 3.10 to 4.3 is what this version was tested with")
        else:
            yield fine("broker", shown)
    if reachable:
        yield await _login(settings)


async def _login(settings: Settings) -> Finding:
    try:
        async with connected(settings, name="doctor") as transport:
            state = transport.state
    except ConfigurationError as error:
        return failed("login", str(error), remedy="mend user, password or virtual host in MESSAGING_BROKER_URL")
    except ConnectionLostError as error:
        return failed("login", str(error), remedy="look into the broker's log")
    if state.link is LinkState.BLOCKED:
        return failed(
            "login", state.problem or "the broker takes no messages", remedy="free memory or disk at the broker"
        )
    return fine("login", f"the broker takes user and virtual host of {Node.parse(settings.broker_urls[0]).address}")


async def check_queues(transport: Depths, names: Names, services: Sequence[str]) -> AsyncIterator[Finding]:
    """Yield what waits where: work without consumers, dead letters, refused and unauthentic messages."""
    for service in services:
        dead = await transport.depth(names.queue(service, "dead"))
        if dead is None and not await _has_work(transport, names, service):
            yield fine(f"{service} queues", "none: a mere client, or not started here yet")
            continue
        yield await _consumers(transport, names, service)
        if dead is None:
            words = f"{names.queue(service, 'dead')} is missing: what cannot succeed has nowhere to go"
            yield failed(
                f"{service} dead letters", words, remedy="restart the service, or run `messaging topology apply`"
            )
        else:
            yield _kept(service, "dead letters", dead.messages, f"look with `messaging dead groups {service}`")
        yield await _alarming(transport, names, service)
        yield await _samples(transport, names, service)


async def _has_work(transport: Depths, names: Names, service: str) -> bool:
    for part in _WORK:
        if await transport.depth(names.queue(service, part)) is not None:
            return True
    return False


async def _consumers(transport: Depths, names: Names, service: str) -> Finding:
    check = f"{service} consumers"
    depths = {part: await transport.depth(names.queue(service, part)) for part in _WORK}
    found = {part: depth for part, depth in depths.items() if depth is not None}
    found |= await _partitions(transport, names, service)
    idle = {part: depth.messages for part, depth in found.items() if depth.consumers == 0}
    waiting = sum(idle.values())
    if waiting:
        where = ", ".join(f"{count} {part}" for part, count in idle.items() if count)
        return failed(check, f"nobody consumes: {where} wait", remedy=f"start the service {service}")
    if idle:
        return warned(check, f"nobody consumes {', '.join(idle)}", remedy=f"start the service {service}")
    shown = ", ".join(f"{part} {depth.consumers} ({depth.messages} wait)" for part, depth in found.items())
    return fine(check, shown or "no work queues")


async def _partitions(transport: Depths, names: Names, service: str) -> dict[str, QueueDepth]:
    """Return the partitions that are fed, or hold something; others are left over from a larger number of them."""
    found: dict[str, QueueDepth] = {}
    for number in range(PARTITIONS_MAX):
        depth = await transport.depth(names.partition(service, number))
        if depth is None:
            break
        if depth.consumers or depth.messages:
            found[f"partition {number}"] = depth
    return found


async def _alarming(transport: Depths, names: Names, service: str) -> Finding:
    depth = await transport.depth(names.queue(service, "refused"))
    return _kept(
        service,
        "refused",
        0 if depth is None else depth.messages,
        "authentic messages that policy forbids: compare `messaging trust show` with what the senders do",
    )


async def _samples(transport: Depths, names: Names, service: str) -> Finding:
    depth = await transport.depth(names.queue(service, "quarantine"))
    return _kept(
        service,
        "quarantine",
        0 if depth is None else depth.messages,
        "bytes that nobody of this realm signed: find out who else may write to this broker",
    )


def _kept(service: str, what: str, count: int, remedy: str) -> Finding:
    check = f"{service} {what}"
    return warned(check, counted(count, "message"), remedy=remedy) if count else fine(check, "empty")
