"""The steps of a rotation, taken: what each does to a bundle's content and to a keyring (docs/trust.md, "Rotation").

`rotation` says which step is next. The times it needs stand in no bundle; they are those of the bundles in which a key
first had its present state, so every bundle that was in force is kept.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from messaging.core.names import is_operator
from messaging.errors import ConfigurationError
from messaging.security.bundle import KeyState
from messaging.security.bundle_edit import Content, with_part
from messaging.security.keyring import Keyring
from messaging.security.keys import DecryptionKey, SigningKey
from messaging.security.public_part import PublicPart
from messaging.security.rotation import OVERLAP_MS, KeyFact, Plan, Step
from messaging.security.suite import ED25519, ENCRYPTION_ALGORITHMS, SUITE_1

__all__ = ["facts_of", "new_keys", "plan_ahead", "suites_in_use", "take_step", "with_new_keys", "without_keys"]

_REVOKED: Final = {"compromise": KeyState.COMPROMISED, "retired": KeyState.RETIRED}
_SUITE_OF: Final = {algorithm: number for number, algorithm in ENCRYPTION_ALGORITHMS.items()}
_IN_USE: Final = ("next", "active")
_NEW_STATE: Final = {Step.ACTIVATE: "active", Step.RETIRE: "retired"}

_Owned = Mapping[str, frozenset[str]]


def facts_of(history: Sequence[Content], identity: str, *, owned: _Owned) -> list[KeyFact]:
    """Return what the bundles tell of an identity's keys.

    Args:
        history: Contents of the bundles that were in force, oldest first; the last is the present one.
        identity: Service or operator.
        owned: Ids of the keys of groups that are this identity's own, by group.

    Raises:
        ConfigurationError: There is no bundle, or it does not know the identity.
    """
    if not history:
        raise ConfigurationError("no trust bundle is in force yet: sign the draft first")
    present = history[-1]
    facts: list[KeyFact] = []
    for role, entry in _entries(present, identity, owned):
        kid = entry["kid"]
        state, since_ms = _state(present, entry), present["issued"]
        for content in reversed(history):
            found = dict(_states(content, identity, owned)).get(kid)
            if found is not state:
                break
            since_ms = content["issued"]
        facts.append(
            KeyFact(
                kid=kid,
                role=role,
                state=state,
                since_ms=since_ms,
                not_before_ms=entry["not_before"],
                not_after_ms=entry["not_after"],
                is_needed=entry["alg"] == ED25519 or _SUITE_OF[entry["alg"]] == present["suites"][0],
            )
        )
    if not facts:
        raise ConfigurationError(f"{identity!r} is not in trust bundle version {present['version']}; add it first")
    return facts


def take_step(content: Content, identity: str, plan: Plan, *, owned: _Owned) -> Content:
    """Return the content after a step that changes keys which the bundle knows already.

    Args:
        content: What it was.
        identity: Whose keys.
        plan: Activate, retire or destroy.
        owned: As of `facts_of`.
    """
    changed: Content = json.loads(json.dumps(content))
    chosen = frozenset(plan.kids)
    if plan.step is Step.DESTROY:
        for entries in _lists(changed, identity):
            entries[:] = [entry for entry in entries if entry["kid"] not in chosen]
        return changed
    rows = list(_entries(changed, identity, owned))
    roles = {role for role, entry in rows if entry["kid"] in chosen}
    for role, entry in rows:
        if entry["kid"] in chosen:
            entry["state"] = _NEW_STATE[plan.step]
            if plan.step is Step.ACTIVATE:
                entry["not_before"] = None
        elif plan.step is Step.ACTIVATE and role in roles and entry["state"] == "active":
            entry["state"] = "retiring"
    return changed


def plan_ahead(content: Content, part: PublicPart, *, at_ms: int) -> Content:
    """Return the content in which the new keys of a part take over at a time to come, so that one signature is enough.

    From then on both keys are in use for ten minutes: clocks differ, and a data key serves for five minutes.
    """
    owned = {group: frozenset(key.kid.hex() for key in keys) for group, keys in part.groups.items()}
    before = {entry["kid"] for _, entry in _entries(content, part.identity, owned)}
    changed = with_part(content, part)
    rows = list(_entries(changed, part.identity, owned))
    renewed = {role for role, entry in rows if entry["kid"] not in before}
    for role, entry in rows:
        if entry["kid"] not in before:
            entry["state"], entry["not_before"] = "active", at_ms
        elif role in renewed and entry["state"] == "active" and entry["not_after"] is None:
            entry["not_after"] = at_ms + OVERLAP_MS
    return changed


def new_keys(keyring: Keyring, content: Content) -> frozenset[str]:
    """Return the ids of a keyring's keys that the bundle does not know yet."""
    owned = {group: frozenset(kid.hex() for kid in keys) for group, keys in keyring.groups.items()}
    known = {entry["kid"] for _, entry in _entries(content, keyring.service, owned)}
    held = {key.kid.hex() for key in keyring.signing} | {kid.hex() for kid in keyring.decryption}
    return frozenset((held | {kid for kids in owned.values() for kid in kids}) - known)


def suites_in_use(content: Content, identity: str) -> frozenset[int]:
    """Return the suites that an identity needs new encryption keys of when it rotates.

    That is the one that messages are sealed in, and those of its keys that are not on their way out.
    """
    entries = _entries(content, identity, {})
    kept = {entry["alg"] for _, entry in entries if entry["state"] in _IN_USE} - {ED25519}
    return frozenset({content["suites"][0], *(_SUITE_OF[algorithm] for algorithm in kept)})


def with_new_keys(keyring: Keyring, suites: Iterable[int] | None = None) -> Keyring:
    """Return the keyring with one fresh key more in each role; those before stay.

    Args:
        keyring: What it was.
        suites: Suites of the new encryption keys; None: those that it has keys of.
    """
    chosen = sorted({key.suite for key in keyring.decryption.values()} if suites is None else {*suites})
    groups = {group: {**keys, **_fresh(keyring.realm, chosen)} for group, keys in keyring.groups.items()}
    return replace(
        keyring,
        signing=(*keyring.signing, SigningKey.generate(keyring.realm)),
        decryption={**keyring.decryption, **_fresh(keyring.realm, chosen)},
        groups=groups,
    )


def without_keys(keyring: Keyring, kids: frozenset[str]) -> Keyring:
    """Return the keyring without some private keys; the last of a role is never taken."""
    signing = tuple(key for key in keyring.signing if key.kid.hex() not in kids)
    decryption = {kid: key for kid, key in keyring.decryption.items() if kid.hex() not in kids}
    groups = {
        group: {kid: key for kid, key in keys.items() if kid.hex() not in kids}
        for group, keys in keyring.groups.items()
    }
    return replace(
        keyring, signing=signing or keyring.signing, decryption=decryption or keyring.decryption, groups=groups
    )


def _fresh(realm: str, suites: Iterable[int]) -> dict[bytes, DecryptionKey]:
    keys = [DecryptionKey.generate(realm, suite) for suite in suites]
    return {key.kid: key for key in keys}


def _entries(content: Content, identity: str, owned: _Owned) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield role and entry of each key of an identity, those of groups that are its own included."""
    found = content["operators" if is_operator(identity) else "services"].get(identity, {"sign": [], "enc": []})
    for role in ("sign", "enc"):
        for entry in found[role]:
            yield _role(role, entry), entry
    for group, kids in owned.items():
        for entry in content["groups"].get(group, {"enc": []})["enc"]:
            if entry["kid"] in kids:
                yield _role(group, entry), entry


def _role(name: str, entry: Mapping[str, Any]) -> str:
    # Keys of two suites stand beside each other: a new one of suite 2 takes nothing over from one of suite 1.
    suite = _SUITE_OF.get(entry["alg"], SUITE_1)
    return name if suite == SUITE_1 else f"{name} of suite {suite}"


def _lists(content: Content, identity: str) -> Iterator[list[dict[str, Any]]]:
    found = content["operators" if is_operator(identity) else "services"][identity]
    yield found["sign"]
    yield found["enc"]
    for group in content["groups"].values():
        yield group["enc"]


def _states(content: Content, identity: str, owned: _Owned) -> Iterator[tuple[str, KeyState]]:
    for _, entry in _entries(content, identity, owned):
        yield entry["kid"], _state(content, entry)


def _state(content: Content, entry: Mapping[str, Any]) -> KeyState:
    revoked = {row["kid"]: _REVOKED[row["reason"]] for row in content["revoked"]}
    return revoked.get(entry["kid"], KeyState(entry["state"]))
