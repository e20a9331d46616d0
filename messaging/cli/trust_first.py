"""The first bundle of a realm: who is known comes from public parts, who may do what from the services' contracts."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from messaging.ambient import real_ambient
from messaging.cli.drafts import show_draft
from messaging.cli.exits import UsageError
from messaging.cli.files import read_input
from messaging.cli.render import line
from messaging.core.envelope import Kind
from messaging.errors import ConfigurationError
from messaging.security.bundle_edit import FirstPolicy, first_content
from messaging.security.public_part import fingerprint, import_part
from messaging.security.roots import PINS_FILE, load_pins, write_pins
from messaging.security.trust import BUNDLE_FILE
from messaging.security.trust_folder import TrustFolder
from messaging.service import Service

__all__ = ["first_trust"]

FOLDER_MODE: Final = 0o755


def first_trust(
    folder: Path,
    services: Sequence[Service],
    *,
    roots: Path | None,
    parts: Sequence[Path],
    days: int,
    max_lifetime_days: int,
    closed: bool,
) -> None:
    """Make a folder with the first draft in it, and show what it allows.

    Args:
        folder: Where bundles are made from now on; made if it is missing.
        services: Their contracts make the policy.
        roots: The roots file; None: it is in the folder already.
        parts: Public parts of services and operators.
        days: How long the bundle is valid.
        max_lifetime_days: Longest life of a message.
        closed: Whether services may send only what they are known to send.

    Raises:
        ConfigurationError: A file is unusable, or there is a bundle already.
        UsageError: Roots or parts are missing.
    """
    if not parts or (roots is None and not (folder / PINS_FILE).exists()):
        raise UsageError(
            "real trust needs --roots FILE (`messaging trust root pin` makes it) and --part FILE for each identity "
            "(`messaging keys generate` and `messaging keys export` make them); for a developer's machine say --dev "
            '(docs/operations.md, "Real keys")'
        )
    if (folder / BUNDLE_FILE).exists():
        raise ConfigurationError(
            f"{folder} has a trust bundle already: change it with `messaging trust add`, `allow` and the like"
        )
    pins = load_pins(folder / PINS_FILE if roots is None else roots)
    raws = [read_input(path) for path in parts]
    imported = [
        import_part(raw, realm=pins.realm, where=f"public part {path}") for raw, path in zip(raws, parts, strict=True)
    ]
    now_ms = real_ambient().now_ms()
    content = first_content(
        pins.realm,
        imported,
        _policy_of(services, closed=closed),
        now_ms=now_ms,
        max_lifetime_s=max_lifetime_days * 86_400,
    )
    folder.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
    if not (folder / PINS_FILE).exists():
        write_pins(pins, folder / PINS_FILE)
    trust = TrustFolder(folder)
    trust.propose(content, now_ms=now_ms, life_ms=days * 86_400_000)
    for raw, part in zip(raws, imported, strict=True):
        trust.keep_part(raw, part)
        line(f"{part.identity}: fingerprint {fingerprint(part)}")
    show_draft(trust)
    line("Take out what is too much before it is signed: messaging trust deny FROM KIND NAME")


def _policy_of(services: Sequence[Service], *, closed: bool) -> FirstPolicy:
    return FirstPolicy(
        handles={
            service.name: frozenset(
                (kind.word, name)
                for kind, listed in (
                    (Kind.COMMAND, service.subscriptions.commands),
                    (Kind.REQUEST, service.subscriptions.requests),
                )
                for name, _ in listed
            )
            for service in services
        },
        subscribes={service.name: frozenset(name for name, _ in service.subscriptions.events) for service in services},
        # A handler of faults is the one place where a service says in its contract what it sends.
        sends={service.name: _known_sends(service) for service in services} if closed else None,
    )


def _known_sends(service: Service) -> frozenset[tuple[str, str]]:
    # A handler of faults is the one place where a service says in its contract what it sends.
    return frozenset((Kind.COMMAND.word, handler.key[1]) for handler in service.handlers if handler.kind is Kind.FAULT)
