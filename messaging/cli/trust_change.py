"""`messaging trust add`, `remove`, `allow`, `deny`, `suites`, `revoke`, `renew`, `discard`: the next bundle's draft.

None of them needs a private key or takes effect by itself: root keys sign the draft.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Final

import typer

from messaging.ambient import real_ambient
from messaging.cli.drafts import show_draft
from messaging.cli.files import read_input
from messaging.cli.key_place import TrustOption, trust_folder
from messaging.cli.keys_rotate import TooEarlyError
from messaging.cli.render import line, shown_time
from messaging.security.bundle_edit import LIFE_MS, Content, allow, deny, revoke, with_part, without_identity
from messaging.security.public_part import fingerprint, import_part
from messaging.security.suite_steps import earliest_ms, with_suites

__all__ = ["add", "allow_", "deny_", "discard", "remove", "renew", "revoke_", "suites"]

DAY_MS: Final = 24 * 3_600_000

_Days = Annotated[int, typer.Option("--days", help="How long the bundle is valid.", min=1, max=365)]
_Who = Annotated[
    str, typer.Argument(metavar="IDENTITY", help="A service, or an operator such as ops:alice.", show_default=False)
]
_Kind = Annotated[
    str,
    typer.Argument(metavar="KIND", help="command, request, event, subscribe, replay or force.", show_default=False),
]
_Name = Annotated[
    str, typer.Argument(metavar="NAME", help="Message name, or prefix.* for all below it.", show_default=False)
]
_To = Annotated[
    str | None,
    typer.Option("--to", help="Of replay and force: the service where it failed; default: the name's owner.",
                 show_default=False),
]  # fmt: skip


def add(
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILE...", help="Public parts of `messaging keys export`; - for stdin.", show_default=False
        ),
    ],
    *,
    trust: TrustOption = None,
    days: _Days = LIFE_MS // DAY_MS,
) -> None:
    """Put identities into the next bundle, or the new keys of those it knows. Compare the fingerprints first.

    Example: [bold]messaging trust add billing.json --trust trust[/bold]
    """
    folder = trust_folder(trust)
    content = folder.content()
    raws = [read_input(path) for path in files]
    parts = [
        import_part(raw, realm=folder.pins.realm, where=f"public part {path}")
        for raw, path in zip(raws, files, strict=True)
    ]
    for part in parts:
        content = with_part(content, part)
    folder.propose(content, now_ms=real_ambient().now_ms(), life_ms=days * DAY_MS)
    for raw, part in zip(raws, parts, strict=True):
        folder.keep_part(raw, part)
        line(f"{part.identity}: fingerprint {fingerprint(part)}")
    show_draft(folder)


def remove(identity: _Who, *, trust: TrustOption = None, days: _Days = LIFE_MS // DAY_MS) -> None:
    """Take an identity out of the next bundle, with every right that names it: what it signed is refused then.

    Example: [bold]messaging trust remove ops:bob --trust trust[/bold]
    """
    folder = trust_folder(trust)
    part = folder.part(identity)
    _change(trust, days, lambda content: without_identity(content, identity, part=part))


def allow_(
    identity: _Who,
    kind: _Kind,
    name: _Name,
    *,
    to: _To = None,
    trust: TrustOption = None,
    days: _Days = LIFE_MS // DAY_MS,
) -> None:
    """Add one right to the next bundle: to send a command, request or event, to read an event, to replay.

    Example: [bold]messaging trust allow users command orders.place_order[/bold], or
    [bold]messaging trust allow billing subscribe orders.order_placed[/bold]
    """
    _change(trust, days, lambda content: allow(content, sender=identity, kind=kind, name=name, to=to))


def deny_(
    identity: _Who,
    kind: _Kind,
    name: _Name,
    *,
    to: _To = None,
    trust: TrustOption = None,
    days: _Days = LIFE_MS // DAY_MS,
) -> None:
    """Take one right out of the next bundle, as `messaging trust show` prints it.

    Example: [bold]messaging trust deny users command orders.cancel_order[/bold]
    """
    _change(trust, days, lambda content: deny(content, sender=identity, kind=kind, name=name, to=to))


def revoke_(
    kid: Annotated[str, typer.Argument(metavar="KEYID", help="Id of the key, 16 hex digits.", show_default=False)],
    *,
    reason: Annotated[str, typer.Option(help="compromise or retired.", show_default=False)],
    trust: TrustOption = None,
    days: _Days = LIFE_MS // DAY_MS,
) -> None:
    """Revoke a key in the next bundle. Compromised: nothing that it signed runs, whatever time it claims.

    It works as soon as the signed bundle is with the services: they look every five seconds.

    Example: [bold]messaging trust revoke 0c5f1a2b3c4d5e6f --reason compromise[/bold]
    """
    now_ms = real_ambient().now_ms()
    _change(trust, days, lambda content: revoke(content, kid, reason=reason, now_ms=now_ms))


def renew(*, trust: TrustOption = None, days: _Days = LIFE_MS // DAY_MS) -> None:
    """Draft the same bundle again with a later end, before the one in force expires.

    Example: [bold]messaging trust renew --days 30[/bold]
    """
    _change(trust, days, lambda content: content)


def suites(
    numbers: Annotated[
        str, typer.Argument(metavar="LIST", help="Such as 2,1: senders use the first.", show_default=False)
    ],
    *,
    trust: TrustOption = None,
    days: _Days = LIFE_MS // DAY_MS,
) -> None:
    """Set the suites of the next bundle: messages are sealed in the first, the others are accepted.

    From suite 1 to the post-quantum suite 2: keys for all (`messaging keys rotate NAME --suite 2`), then 1,2, then 2,1,
    then 2. A step that would lose messages is refused; one that comes too early says from when it will not.

    Exit codes: 0 done, 1 too early.

    Example: [bold]messaging trust suites 2,1 --trust trust[/bold]
    """
    chosen = [int(number) if number in ("1", "2") else 0 for number in numbers.split(",")]
    now_ms = real_ambient().now_ms()
    folder = trust_folder(trust)
    content = with_suites(folder.content(), chosen, now_ms=now_ms)
    earliest = earliest_ms(folder.history(), chosen)
    if now_ms < earliest:
        raise TooEarlyError(
            f"too early for suites {numbers}: from {shown_time(earliest)}; before that messages would be lost"
        )
    folder.propose(content, now_ms=now_ms, life_ms=days * DAY_MS)
    show_draft(folder)


def discard(*, trust: TrustOption = None) -> None:
    """Throw the draft away, with the signatures that it has.

    Example: [bold]messaging trust discard[/bold]
    """
    folder = trust_folder(trust)
    folder.discard()
    line(f"The draft in {folder.path} is gone; the bundle in force stays.")


def _change(trust: Path | None, days: int, edit: Callable[[Content], Content]) -> None:
    folder = trust_folder(trust)
    folder.propose(edit(folder.content()), now_ms=real_ambient().now_ms(), life_ms=days * DAY_MS)
    show_draft(folder)
