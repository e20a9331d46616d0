"""Looks for policies of the broker that take away what queues and exchanges of services promise.

Only the management API tells them. What a policy may set, and what an argument of ours outranks: docs/topology.md,
"What the versions do".
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from messaging.cli.finding import Finding, State, failed, fine
from messaging.cli.management import SeenExchange, SeenQueue
from messaging.core.delays import LEVELS
from messaging.core.partition import PARTITIONS_MAX
from messaging.core.topology import Names

__all__ = ["check_policies"]

_REJECTS: Final = "reject-publish"
_LIMITS: Final = ("max-length", "max-length-bytes")
_RUNG: Final = "rung"
_WORK: Final = ("commands", "events")
_KEPT: Final = ("dead", "refused")
_REMEDY: Final = "rabbitmqctl clear_policy, or a pattern that spares the queues and exchanges of this namespace"


def check_policies(
    queues: Sequence[SeenQueue], exchanges: Sequence[SeenExchange], names: Names, services: Sequence[str]
) -> list[Finding]:
    """Return which effective policies break what is promised, and which queues do not run.

    Args:
        queues: All of the virtual host, as the management API shows them.
        exchanges: All of the virtual host.
        names: The namespace.
        services: Whose queues are looked at.
    """
    roles = _roles(names, services)
    findings = []
    for queue in queues:
        service, part = roles.get(queue.name) or (_service_of_rung(queue.name, names, services), _RUNG)
        if not service:
            continue
        if not queue.is_up:
            findings.append(
                failed(f"{service} queues", f"{queue.name} does not run", remedy="start the broker's nodes")
            )
        findings += [
            _told(f"{service} policies", state, f"policy {queue.policy!r} on {queue.name} sets {words}")
            for state, words in _broken(part, queue.effective)
        ]
    findings += _swallowing(exchanges, names)
    if not any("policies" in finding.check for finding in findings):
        findings.append(fine("policies", "none touches what the queues promise"))
    return findings


def _roles(names: Names, services: Sequence[str]) -> dict[str, tuple[str, str]]:
    roles = {names.queue(service, part): (service, part) for service in services for part in (*_WORK, *_KEPT)}
    for service in services:
        roles |= {names.partition(service, number): (service, "commands") for number in range(PARTITIONS_MAX)}
        roles |= {names.delay(service, level): (service, _RUNG) for level in range(LEVELS)}
    return roles


def _service_of_rung(queue: str, names: Names, services: Sequence[str]) -> str:
    return next((service for service in services if queue.startswith(names.rung_prefix(service))), "")


def _told(check: str, state: State, words: str) -> Finding:
    return Finding(check=check, state=state, words=words, remedy=_REMEDY)


def _broken(part: str, effective: Mapping[str, Any]) -> list[tuple[State, str]]:
    found = []
    overflow = effective.get("overflow", _REJECTS)
    if overflow != _REJECTS:
        found.append((State.FAIL, f"overflow={overflow}, which drops messages without a word"))
    else:
        # A bound that rejects loses nothing: of dead letters it is a choice, elsewhere it stops what leads there.
        found += [_bounded(part, key, effective[key]) for key in _LIMITS if key in effective and part not in _KEPT]
    if "message-ttl" in effective:
        harm = "lets messages come before their time" if part == _RUNG else "takes messages away"
        found.append((State.FAIL, f"message-ttl={effective['message-ttl']}, which {harm}"))
    if "expires" in effective:
        found.append((State.FAIL, f"expires={effective['expires']}, which takes the queue away with its messages"))
    if "dead-letter-routing-key" in effective and part == _RUNG:
        # Queues of ours name their dead-letter exchange, which outranks a policy; the key of rungs is left open.
        key = effective["dead-letter-routing-key"]
        found.append((State.FAIL, f"dead-letter-routing-key={key}: what waits there does not find back"))
    if "delivery-limit" in effective and part in _KEPT:
        words = f"delivery-limit={effective['delivery-limit']}: looking at a letter so often takes it away"
        found.append((State.FAIL, words))
    return found


def _bounded(part: str, key: str, value: object) -> tuple[State, str]:
    if part == _RUNG:
        return State.FAIL, f"{key}={value}, which stops retries when it is reached"
    return State.WARN, f"{key}={value}: when it is reached, senders are refused and the rungs that lead back stop"


def _swallowing(exchanges: Sequence[SeenExchange], names: Names) -> list[Finding]:
    """Return policies by which the broker confirms commands and requests that nobody gets."""
    return [
        failed(
            "policies",
            f"policy {exchange.policy!r} on exchange {exchange.name} sets alternate-exchange={exchange.alternate}: "
            "what nobody handles is confirmed instead of coming back to its sender",
            remedy=_REMEDY,
        )
        for exchange in exchanges
        if exchange.alternate and exchange.name in (names.commands, names.requests, names.dead)
    ]
