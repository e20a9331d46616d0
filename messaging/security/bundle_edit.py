"""Changes of a bundle's content, as values: each takes a content and returns another (docs/trust.md).

Nothing here signs, writes or decides whether a content is allowed: `parse_content` is asked about every result before
it is kept, so a mistake of an edit cannot reach a signature.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from messaging.core.names import is_operator, owner_of
from messaging.errors import ConfigurationError
from messaging.security import suite
from messaging.security.bundle import OPS_GROUP
from messaging.security.development import key_entry
from messaging.security.keys import EncryptionKey, VerifyKey
from messaging.security.public_part import PublicPart

__all__ = [
    "LIFE_MS",
    "Content",
    "FirstPolicy",
    "allow",
    "deny",
    "first_content",
    "renew",
    "revoke",
    "with_part",
    "without_identity",
]

LIFE_MS: Final = 7 * 24 * 3_600_000
MAX_LIFETIME_S: Final = 7 * 24 * 3600
RULE_KINDS: Final = ("command", "request", "event")

Content = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class FirstPolicy:
    """What the contracts of the services say about who needs what.

    Attributes:
        handles: Names of commands and of requests by service, as pairs of kind and name.
        subscribes: Events by service.
        sends: What services are known to send, as pairs of kind and name; None lets each send what the others handle.
    """

    handles: Mapping[str, frozenset[tuple[str, str]]]
    subscribes: Mapping[str, frozenset[str]]
    sends: Mapping[str, frozenset[tuple[str, str]]] | None = None


def first_content(
    realm: str,
    parts: Sequence[PublicPart],
    policy: FirstPolicy,
    *,
    now_ms: int,
    life_ms: int = LIFE_MS,
    max_lifetime_s: int = MAX_LIFETIME_S,
) -> Content:
    """Return the content of the first bundle of a realm: version 1, all keys active.

    Operators may read what fails and replay everything, without force; whatever else they may is for `allow`.

    Raises:
        ConfigurationError: An identity appears twice, or the policy names a service without a public part.
    """
    content: Content = {
        "realm": realm,
        "dev": False,
        "version": 1,
        "issued": now_ms,
        "expires": now_ms + life_ms,
        "suites": [suite.SUITE_1],
        "max_lifetime_s": max_lifetime_s,
        "services": {},
        "operators": {},
        "groups": {},
        "revoked": [],
        "policy": {"send": [], "subscribe": {}, "escrow": _escrow(parts), "replay": []},
    }
    for part in parts:
        if part.identity in _section(content, part.identity):
            raise ConfigurationError(f"two public parts are of {part.identity!r}; name one for each identity")
        content = with_part(content, part)
    services = sorted(content["services"])
    missing = sorted({*policy.handles, *policy.subscribes} - {*services})
    if missing:
        raise ConfigurationError(
            f"no public part of {missing[0]!r}; export it with `messaging keys export {missing[0]}` and name the file"
        )
    content["policy"]["send"] = _first_rules(services, policy)
    content["policy"]["subscribe"] = _first_subscriptions(policy)
    content["policy"]["replay"] = [
        {"operator": operator, "name": f"{owner}.*", "to": service, "force": False}
        for operator in sorted(content["operators"])
        for service in services
        for owner in _owners_heard(service, policy)
    ]
    return content


def with_part(content: Content, part: PublicPart) -> Content:
    """Return the content with an identity, or with the new keys of one that it knows.

    Keys of an unknown identity are active at once, for nobody relies on others. New keys of a known one are `next`:
    they are published before they are used.

    Raises:
        ConfigurationError: Nothing could be sealed to the new identity: it has no key of the suite in use.
    """
    changed = _copy(content)
    section = _section(changed, part.identity)
    if part.identity not in section:
        _check_suite(part, content["suites"][0])
    state = "next" if part.identity in section else "active"
    entry = section.setdefault(part.identity, {"sign": [], "enc": []})
    _add_keys(entry["sign"], part.signing, state)
    _add_keys(entry["enc"], part.encryption, state)
    for group, keys in part.groups.items():
        known = changed["groups"].setdefault(group, {"enc": [], "members": []})
        _add_keys(known["enc"], keys, state)
        if part.identity not in known["members"]:
            known["members"] = sorted([*known["members"], part.identity])
    return changed


def without_identity(content: Content, identity: str, *, part: PublicPart | None = None) -> Content:
    """Return the content without an identity and without everything that names it.

    Args:
        content: What it was.
        identity: Service or operator.
        part: Its public part: its keys of groups are taken out as well.

    Raises:
        ConfigurationError: It is not in there.
    """
    changed = _copy(content)
    section = _section(changed, identity)
    if identity not in section:
        raise ConfigurationError(_unknown(identity, content))
    del section[identity]
    policy = changed["policy"]
    policy["send"] = [rule for rule in policy["send"] if identity not in (rule["from"], rule["to"])]
    policy["replay"] = [grant for grant in policy["replay"] if identity not in (grant["operator"], grant["to"])]
    subscribe = {event: [name for name in names if name != identity] for event, names in policy["subscribe"].items()}
    policy["subscribe"] = {event: names for event, names in subscribe.items() if names}
    for group, entry in changed["groups"].items():
        gone = {key.kid.hex() for key in part.groups.get(group, ())} if part is not None else set()
        entry["enc"] = [key for key in entry["enc"] if key["kid"] not in gone]
        entry["members"] = [member for member in entry["members"] if member != identity]
    return changed


def revoke(content: Content, kid: str, *, reason: str, now_ms: int) -> Content:
    """Return the content with a key revoked; `compromise` may follow `retired`, never the other way.

    Raises:
        ConfigurationError: No such key, an unknown reason, or it is revoked like this already.
    """
    if reason not in ("compromise", "retired"):
        raise ConfigurationError(f"{reason!r} is no reason for a revocation: say compromise or retired")
    if kid not in {entry["kid"] for entries in _all_keys(content).values() for entry in entries}:
        raise ConfigurationError(
            f"no key {kid!r} in trust bundle version {content['version']}; `trust show` lists them"
        )
    changed = _copy(content)
    before = {entry["kid"]: entry["reason"] for entry in changed["revoked"]}
    if before.get(kid) in (reason, "compromise"):
        raise ConfigurationError(f"key {kid} is revoked already, because of {before[kid]}; nothing was changed")
    changed["revoked"] = [entry for entry in changed["revoked"] if entry["kid"] != kid]
    changed["revoked"].append({"kid": kid, "at": now_ms, "reason": reason})
    return changed


def allow(content: Content, *, sender: str, kind: str, name: str, to: str | None = None) -> Content:
    """Return the content with one right more.

    Args:
        content: What it was.
        sender: Who may; of `subscribe` the service that reads.
        kind: `command`, `request`, `event`, `subscribe`, `replay` or `force`.
        name: Message name or `prefix.*`; of `subscribe` a name.
        to: Of `replay` and `force` the service where it failed; else the owner of the name.

    Raises:
        ConfigurationError: An unknown kind, or the right is there already.
    """
    changed = _copy(content)
    rows, row = _right(changed, sender, kind, name, to)
    if row in rows:
        raise ConfigurationError(f"{sender!r} has this right already: {json.dumps(row)}")
    if kind == "force":
        # The stronger grant replaces the weaker one, so that taking it away leaves nothing behind.
        weaker = {**row, "force": False} if isinstance(row, dict) else row
        rows[:] = [found for found in rows if found != weaker]
    rows.append(row)
    return changed


def deny(content: Content, *, sender: str, kind: str, name: str, to: str | None = None) -> Content:
    """Return the content with one right less; arguments as of `allow`.

    Raises:
        ConfigurationError: An unknown kind, or there is no such right.
    """
    changed = _copy(content)
    rows, row = _right(changed, sender, kind, name, to)
    if row not in rows:
        raise ConfigurationError(
            f"there is no such right in trust bundle version {content['version']}: {json.dumps(row)}; "
            "`messaging trust show` lists them, and a rule is taken away as it was written"
        )
    rows.remove(row)
    subscribe = changed["policy"]["subscribe"]
    changed["policy"]["subscribe"] = {event: names for event, names in subscribe.items() if names}
    return changed


def renew(content: Content, *, version: int, now_ms: int, life_ms: int = LIFE_MS) -> Content:
    """Return the content as a newer version, issued now."""
    return {**_copy(content), "version": version, "issued": now_ms, "expires": now_ms + life_ms}


def _copy(content: Content) -> Content:
    copied: Content = json.loads(json.dumps(content))
    return copied


def _section(content: Content, identity: str) -> dict[str, Any]:
    section: dict[str, Any] = content["operators" if is_operator(identity) else "services"]
    return section


def _check_suite(part: PublicPart, number: int) -> None:
    for name, keys in ((part.identity, part.encryption), *part.groups.items()):
        if number not in {key.suite for key in keys}:
            raise ConfigurationError(
                f"the public part of {part.identity!r} has no key of suite {number} for {name!r}, and messages are "
                f"sealed in that: `messaging keys rotate {part.identity} --suite {number}`, and export it again"
            )


def _add_keys(entries: list[Content], keys: Sequence[VerifyKey] | Sequence[EncryptionKey], state: str) -> None:
    known = {entry["kid"] for entry in entries}
    entries += [
        {**key_entry(key.kid, key.algorithm, key.raw), "state": state} for key in keys if key.kid.hex() not in known
    ]


def _all_keys(content: Content) -> dict[str, list[Content]]:
    found = {
        name: [*entry["sign"], *entry["enc"]]
        for section in ("services", "operators")
        for name, entry in content[section].items()
    }
    return found | {group: list(entry["enc"]) for group, entry in content["groups"].items()}


def _escrow(parts: Sequence[PublicPart]) -> dict[str, bool]:
    # Without an operator's key there is nobody to seal to; with one, operators can read what fails.
    has_group = any(part.groups.get(OPS_GROUP) for part in parts)
    return {"command": has_group, "event": has_group, "request": False, "reply": False}


def _first_rules(services: Iterable[str], policy: FirstPolicy) -> list[Content]:
    handled = sorted({pair for pairs in policy.handles.values() for pair in pairs})
    rules = []
    for sender in services:
        if policy.sends is None:
            wanted = [pair for pair in handled if owner_of(pair[1]) != sender]
        else:
            wanted = sorted(policy.sends.get(sender, ()))
        rules += [{"from": sender, "kind": kind, "name": name, "to": owner_of(name)} for kind, name in wanted]
    return rules


def _first_subscriptions(policy: FirstPolicy) -> dict[str, list[str]]:
    subscribe: dict[str, list[str]] = {}
    for service in sorted(policy.subscribes):
        for event in sorted(policy.subscribes[service]):
            subscribe.setdefault(event, []).append(service)
    return subscribe


def _owners_heard(service: str, policy: FirstPolicy) -> list[str]:
    return sorted({service, *(owner_of(event) for event in policy.subscribes.get(service, ()))})


def _right(content: Content, sender: str, kind: str, name: str, to: str | None) -> tuple[list[Any], Content | str]:
    """Return the list that a right stands in, and its row."""
    policy = content["policy"]
    if kind in RULE_KINDS:
        return policy["send"], {"from": sender, "kind": kind, "name": name, "to": owner_of(name) if to is None else to}
    if kind == "subscribe":
        return policy["subscribe"].setdefault(name, []), sender
    if kind in ("replay", "force"):
        where = owner_of(name) if to is None else to
        return policy["replay"], {"operator": sender, "name": name, "to": where, "force": kind == "force"}
    raise ConfigurationError(f"{kind!r} is no kind of right: say command, request, event, subscribe, replay or force")


def _unknown(identity: str, content: Content) -> str:
    known = ", ".join(sorted([*content["services"], *content["operators"]]))
    return f"{identity!r} is not in trust bundle version {content['version']}; it knows {known}"
