"""Asks the policy one question, and says which rule decided or which line is missing (docs/trust.md, "Policy").

The answers are those of the sealer and the opener, which ask the same `Policy`; this module only explains them.
"""

import json
from dataclasses import dataclass

from messaging.core.envelope import Kind
from messaging.core.names import is_operator, owner_of
from messaging.security.bundle import TrustBundle
from messaging.security.policy import ReplayGrant, Rule, matches

__all__ = ["Answer", "ask_to_read", "ask_to_replay", "ask_to_send"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What the policy says.

    Attributes:
        is_allowed: Whether it may.
        because: The rule that decided, or why none does.
        missing: Where to add what, if a line is missing; empty when it is allowed or no line would help.
    """

    is_allowed: bool
    because: str
    missing: str = ""


def ask_to_send(bundle: TrustBundle, sender: str, kind: Kind, name: str) -> Answer:
    """Tell whether somebody may send a command or request, or publish an event.

    Args:
        bundle: The bundle.
        sender: Service or operator.
        kind: Command, request or event.
        name: Message name.
    """
    owner = owner_of(name)
    if unknown := _unknown(bundle, sender, owner):
        return unknown
    if kind is Kind.EVENT and sender == owner:
        return Answer(is_allowed=True, because=f"{sender} owns {name}: an event needs no rule from its owner")
    rule = bundle.policy.rule_for(sender, kind, name, owner)
    if rule is not None:
        return Answer(is_allowed=True, because=f"policy.send: {_shown_rule(rule)}")
    line = {"from": sender, "kind": kind.word, "name": name, "to": owner}
    return Answer(
        is_allowed=False, because="no rule of policy.send covers it", missing=f"policy.send: {json.dumps(line)}"
    )


def ask_to_read(bundle: TrustBundle, service: str, event: str) -> Answer:
    """Tell whether a service may read an event."""
    if unknown := _unknown(bundle, service, owner_of(event)):
        return unknown
    readers = bundle.policy.audience_of_event(event)
    if service in readers:
        return Answer(is_allowed=True, because=f"policy.subscribe: {json.dumps({event: list(readers)})}")
    line = {event: [*readers, service]}
    return Answer(
        is_allowed=False,
        because=f"policy.subscribe seals {event} to {', '.join(readers) or 'nobody'}",
        missing=f"policy.subscribe: {json.dumps(line)}",
    )


def ask_to_replay(bundle: TrustBundle, operator: str, name: str, to: str, *, force: bool = False) -> Answer:
    """Tell whether an operator may replay what failed in a service."""
    if not is_operator(operator):
        return Answer(is_allowed=False, because=f"{operator} is no operator: only persons (ops:<name>) replay")
    if unknown := _unknown(bundle, operator, to):
        return unknown
    for grant in bundle.policy.replay:
        if grant.operator == operator and grant.to == to and matches(grant.name, name) and (grant.force or not force):
            return Answer(is_allowed=True, because=f"policy.replay: {_shown_grant(grant)}")
    line = {"operator": operator, "name": name, "to": to, "force": force}
    return Answer(
        is_allowed=False, because="no grant of policy.replay covers it", missing=f"policy.replay: {json.dumps(line)}"
    )


def _unknown(bundle: TrustBundle, *identities: str) -> Answer | None:
    for identity in identities:
        if identity not in bundle.signing:
            return Answer(
                is_allowed=False,
                because=f"{identity} has no keys in trust bundle version {bundle.version}: "
                "`messaging trust add` its public part first",
            )
    return None


def _shown_rule(rule: Rule) -> str:
    return json.dumps({"from": rule.sender, "kind": rule.kind.word, "name": rule.name, "to": rule.to})


def _shown_grant(grant: ReplayGrant) -> str:
    return json.dumps({"operator": grant.operator, "name": grant.name, "to": grant.to, "force": grant.force})
