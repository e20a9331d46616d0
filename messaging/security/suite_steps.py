"""Changing the suites of a bundle without losing a message: steps in one order, each with its earliest time.

    [1]       everybody gets a key of suite 2 beside the one of suite 1 (`keys rotate --suite 2`)
    [1, 2]    receivers accept suite 2, nobody sends it
    [2, 1]    senders use it, receivers still accept what is under way in suite 1
    [2]       suite 1 is refused; its keys become retiring and end like all others (docs/trust.md, "Suites")

A suite is listed before it is first, so that no receiver with yesterday's bundle meets it; and it is dropped only when
nothing can be under way in it. Values in, values out: nothing here reads a clock, a file or a key.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any, Final

from messaging.errors import ConfigurationError
from messaging.security.bundle_edit import Content
from messaging.security.keyring import Keyring
from messaging.security.keys import DecryptionKey
from messaging.security.rotation import SETTLE_MS, SKEW_MS
from messaging.security.suite import ENCRYPTION_ALGORITHMS, SUITES

__all__ = ["earliest_ms", "with_suite", "with_suites"]

_IN_USE: Final = ("next", "active")


def earliest_ms(history: Sequence[Content], suites: Sequence[int]) -> int:
    """Return when a list of suites may follow those in force, Unix milliseconds; 0 when nothing has to be waited for.

    Args:
        history: Contents of the bundles that were in force, oldest first; the last is the present one.
        suites: The list to come, senders' suite first.

    Raises:
        ConfigurationError: Another list must come first; the message says which.
    """
    if not history:
        return 0
    present = list(history[-1]["suites"])
    times = [0]
    if suites[0] not in present:
        raise ConfigurationError(
            f"suite {suites[0]} cannot be used at once: a service that does not have the bundle yet would refuse it; "
            f"list it behind the others first: messaging trust suites {_text([*present, suites[0]])}"
        )
    if suites[0] != present[0]:
        times.append(_since(history, suites[0]) + SETTLE_MS)
    for dropped in sorted({*present} - {*suites}):
        if dropped == present[0]:
            ordered = [*suites, dropped]
            raise ConfigurationError(
                f"suite {dropped} cannot be dropped at once: messages are sealed in it now; use another first: "
                f"messaging trust suites {_text(ordered)}"
            )
        times.append(_last_used_ms(history, dropped))
    return max(times)


def with_suites(content: Content, suites: Sequence[int], *, now_ms: int) -> Content:
    """Return the content with another list of suites; keys of a suite that is dropped become `retiring`.

    Args:
        content: What it was.
        suites: Those that receivers accept; senders use the first.
        now_ms: Unix milliseconds; which keys are planned for later depends on it.

    Raises:
        ConfigurationError: An unknown suite, one twice, none, or somebody has no active key of the first.
    """
    if not suites or len(set(suites)) != len(suites) or not SUITES.issuperset(suites):
        raise ConfigurationError(f"{_text(suites)!r} is no list of suites: name 1 and 2, or one of them, each once")
    changed: Content = json.loads(json.dumps(content))
    lacking = [name for name, entries in _encryption(changed) if not _is_usable(changed, entries, suites[0], now_ms)]
    if lacking:
        raise ConfigurationError(
            f"no active key of suite {suites[0]}: {', '.join(lacking)}; nothing could be sealed to them: "
            f"`messaging keys rotate NAME --suite {suites[0]}` for each (of a group: its members), then `messaging "
            "keys rotate NAME` to make it active"
        )
    algorithms = {ENCRYPTION_ALGORITHMS[number] for number in {*content["suites"]} - {*suites}}
    for _, entries in _encryption(changed):
        for entry in entries:
            if entry["alg"] in algorithms and entry["state"] in _IN_USE:
                entry["state"] = "retiring"
    changed["suites"] = list(suites)
    return changed


def with_suite(keyring: Keyring, suite: int) -> Keyring:
    """Return the keyring with a key of a suite in each role that has none; those there are stay.

    Raises:
        ConfigurationError: Every role has one.
    """

    def more(keys: Mapping[bytes, DecryptionKey]) -> dict[bytes, DecryptionKey]:
        if any(key.suite == suite for key in keys.values()):
            return dict(keys)
        fresh = DecryptionKey.generate(keyring.realm, suite)
        return {**keys, fresh.kid: fresh}

    groups = {group: more(keys) for group, keys in keyring.groups.items()}
    found = replace(keyring, decryption=more(keyring.decryption), groups=groups)
    if found.decryption == keyring.decryption and found.groups == keyring.groups:
        raise ConfigurationError(
            f"the keyring of {keyring.service!r} has keys of suite {suite} already; `messaging keys rotate` without "
            "--suite renews them"
        )
    return found


def _since(history: Sequence[Content], suite: int) -> int:
    """Return when the first of the latest bundles that all list a suite was issued."""
    since_ms = 0
    for content in reversed(history):
        if suite not in content["suites"]:
            break
        since_ms = int(content["issued"])
    return since_ms


def _last_used_ms(history: Sequence[Content], suite: int) -> int:
    """Return until when messages sealed in a suite can be under way; 0 when none ever was."""
    found = 0
    for content, following in pairwise(history):
        if content["suites"][0] == suite:
            # Services that look at the bundle late use it for a while longer.
            found = int(following["issued"]) + SETTLE_MS + 1000 * int(content["max_lifetime_s"]) + SKEW_MS
    return found


def _encryption(content: Content) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    for section in ("services", "operators", "groups"):
        for name, entry in content[section].items():
            yield name, entry["enc"]


def _is_usable(content: Content, entries: Sequence[Content], suite: int, now_ms: int) -> bool:
    revoked = {row["kid"] for row in content["revoked"]}
    return any(
        entry["alg"] == ENCRYPTION_ALGORITHMS[suite]
        and entry["state"] == "active"
        and entry["kid"] not in revoked
        and (entry["not_before"] is None or entry["not_before"] <= now_ms)
        and (entry["not_after"] is None or entry["not_after"] >= now_ms)
        for entry in entries
    )


def _text(suites: Sequence[int]) -> str:
    return ",".join(map(str, suites))
