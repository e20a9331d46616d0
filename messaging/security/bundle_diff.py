"""What changes from one bundle to the next, in words: what a person reads before signing (docs/trust.md).

Every difference of the two contents becomes a sentence; whatever has no sentence of its own is named as it stands, so
nothing can be slipped under a signature because this module does not know it.
"""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, Final

from messaging.security.bundle_edit import Content
from messaging.security.suite import SUITE_2, XWING

__all__ = ["differences"]

_ROLES: Final = {"sign": "signing key", "enc": "encryption key"}
_KNOWN: Final = frozenset(
    {"suites", "version", "issued", "expires", "services", "operators", "groups", "revoked", "policy"}
)
_SECTIONS: Final = (("services", "service"), ("operators", "operator"))


def differences(old: Content, new: Content) -> list[str]:
    """Return one sentence for each difference, most telling first: who is trusted, then what they may."""
    return [
        *_identities(old, new),
        *_groups(old["groups"], new["groups"]),
        *_revocations(old["revoked"], new["revoked"]),
        *_policy(old["policy"], new["policy"]),
        *_suites(old["suites"], new["suites"]),
        *_rest(old, new),
        *_times(old, new),
    ]


def _identities(old: Content, new: Content) -> Iterator[str]:
    for section, word in _SECTIONS:
        before, after = old[section], new[section]
        for name in sorted(before.keys() | after.keys()):
            if name not in after:
                yield f"{word} {name} is removed: nobody accepts what it signs"
                continue
            if name not in before:
                yield f"{word} {name} is added"
            for role, words in _ROLES.items():
                listed = before.get(name, {}).get(role, [])
                yield from _keys(f"{words} {{kid}} of {name}", listed, after[name][role])


def _groups(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[str]:
    empty: dict[str, Any] = {"enc": [], "members": []}
    for group in sorted(old.keys() | new.keys()):
        before, after = old.get(group, empty), new.get(group, empty)
        for member in sorted({*after["members"]} - {*before["members"]}):
            yield f"{member} joins {group}: it can read what is sealed to that group from now on"
        for member in sorted({*before["members"]} - {*after["members"]}):
            yield f"{member} leaves {group}"
        yield from _keys(f"encryption key {{kid}} of {group}", before["enc"], after["enc"])


def _keys(what: str, old: list[Content], new: list[Content]) -> Iterator[str]:
    before, after = ({entry["kid"]: entry for entry in entries} for entries in (old, new))
    for kid in sorted(before.keys() | after.keys()):
        named = what.format(kid=kid)
        if kid not in after:
            yield f"{named} is gone (it was {before[kid]['state']})"
        elif kid not in before:
            hybrid = ", post-quantum" if after[kid]["alg"] == XWING else ""
            yield f"{named} is new: {after[kid]['state']}{hybrid}{_planned(after[kid])}"
        else:
            yield from _changed_key(named, before[kid], after[kid])


def _changed_key(named: str, old: Content, new: Content) -> Iterator[str]:
    if old["pub"] != new["pub"] or old["alg"] != new["alg"]:
        yield f"{named} IS ANOTHER KEY under the same id: do not sign this"
    if old["state"] != new["state"]:
        yield f"{named} becomes {new['state']} (it was {old['state']})"
    if _planned(old) != _planned(new):
        yield f"{named} is planned{_planned(new) or ' without times'}"


def _planned(entry: Content) -> str:
    first, last = entry["not_before"], entry["not_after"]
    return (f" from {_time(first)}" if first is not None else "") + (
        f" until {_time(last)}" if last is not None else ""
    )


def _revocations(old: list[Content], new: list[Content]) -> Iterator[str]:
    before, after = ({entry["kid"]: entry["reason"] for entry in entries} for entries in (old, new))
    for kid in sorted(before.keys() | after.keys()):
        if before.get(kid) == after.get(kid):
            continue
        if kid not in after:
            yield f"key {kid} IS NO LONGER REVOKED (it was, because of {before[kid]})"
        elif after[kid] == "compromise":
            yield f"key {kid} is revoked as compromised: nothing that it signed is believed, nobody seals to it"
        else:
            yield f"key {kid} is revoked as retired"


def _policy(old: Content, new: Content) -> Iterator[str]:
    yield from _rights(_rules(old), _rules(new))
    yield from _rights(_readers(old), _readers(new))
    yield from _rights(_grants(old), _grants(new))
    for kind in sorted(old["escrow"].keys() | new["escrow"].keys()):
        before, after = old["escrow"].get(kind, False), new["escrow"].get(kind, False)
        if before != after:
            yield f"operators can {'now' if after else 'no longer'} read each {kind}"


def _rights(old: set[str], new: set[str]) -> Iterator[str]:
    for right in sorted(new - old):
        yield right.replace(" may ", " may now ", 1)
    for right in sorted(old - new):
        yield right.replace(" may ", " may no longer ", 1)


def _rules(policy: Content) -> set[str]:
    return {f"{rule['from']} may send {rule['kind']} {rule['name']} to {rule['to']}" for rule in policy["send"]}


def _readers(policy: Content) -> set[str]:
    return {f"{name} may read event {event}" for event, names in policy["subscribe"].items() for name in names}


def _grants(policy: Content) -> set[str]:
    return {
        f"{row['operator']} may replay {row['name']} in {row['to']}{', by force too' if row['force'] else ''}"
        for row in policy["replay"]
    }


def _suites(old: list[int], new: list[int]) -> Iterator[str]:
    if old[0] != new[0]:
        yield f"messages are sealed in {_suite(new[0])}; they were in {_suite(old[0])}"
    for number in sorted({*new} - {*old}):
        yield f"{_suite(number)} is accepted"
    for number in sorted({*old} - {*new}):
        yield f"{_suite(number)} is no longer accepted: whatever is still under way in it is refused"


def _suite(number: int) -> str:
    return f"suite {number} (post-quantum)" if number == SUITE_2 else f"suite {number}"


def _rest(old: Content, new: Content) -> Iterator[str]:
    for name in sorted((old.keys() | new.keys()) - _KNOWN):
        if old.get(name) != new.get(name):
            yield f"{name} changes from {old.get(name)!r} to {new.get(name)!r}"


def _times(old: Content, new: Content) -> Iterator[str]:
    if old["version"] != new["version"]:
        yield f"version {old['version']} becomes {new['version']}"
    if old["expires"] != new["expires"]:
        yield f"it is valid until {_time(new['expires'])} (it was {_time(old['expires'])})"


def _time(unix_ms: int) -> str:
    try:
        return datetime.fromtimestamp(unix_ms / 1000, tz=UTC).strftime("%Y-%m-%d %H:%M:%SZ")
    except (ValueError, OverflowError, OSError):
        # No calendar holds it: shown as it stands.
        return f"{unix_ms} ms"
