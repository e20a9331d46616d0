"""`messaging trust`: who is known, by which keys, and who may send what to whom."""

from pathlib import Path
from typing import Annotated

import typer

from messaging.ambient import real_ambient
from messaging.cli.exits import UsageError
from messaging.cli.key_head import key_files_in, read_head
from messaging.cli.load import load_service
from messaging.cli.render import line, print_json, shown_age, shown_time, table
from messaging.core.envelope import Kind
from messaging.errors import ConfigurationError
from messaging.security.bundle import EncryptionEntry, SigningEntry, TrustBundle
from messaging.security.bundle_format import verify_bundle
from messaging.security.development_files import Contract, InitReport, init_development
from messaging.security.keys import VerifyKey
from messaging.security.trust import BUNDLE_FILE
from messaging.settings import Settings

__all__ = ["app"]

app = typer.Typer(
    help="The trust bundle: everybody's public keys, and who may send what to whom.",
    no_args_is_help=True,
    rich_markup_mode="rich",
)


@app.command()
def init(
    folder: Annotated[Path, typer.Argument(help="The keys folder; made if it is missing.", show_default=False)],
    *,
    sources: Annotated[
        list[str],
        typer.Option(
            "--from",
            metavar="MODULE:SERVICE",
            help="A service to make keys for; repeat for several.",
            show_default=False,
        ),
    ],
    dev: Annotated[bool, typer.Option("--dev", help="Development keys: 14 days, this machine only.")] = False,
    operator: Annotated[str, typer.Option(help="Who may send by hand and replay.")] = "dev",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Make keys for services and an operator, and the bundle that knows them all.

    A second run adds services and keeps every key; it also renews the bundle.

    Example: [bold]messaging trust init --dev keys --from services.users:users --from services.orders:orders[/bold]
    """
    if not dev:
        raise UsageError(
            "say --dev: this makes development keys alone. Real keys: `messaging keys generate` for each identity, and "
            'a bundle that your offline root key signs (docs/operations.md, "Real keys")'
        )
    services = [load_service(source) for source in sources]
    report = init_development(
        folder,
        {service.name: Contract(handles=service.subscriptions) for service in services},
        ambient=real_ambient(),
        operator=operator,
    )
    if as_json:
        print_json(
            {
                "folder": report.folder,
                "realm": report.realm,
                "version": report.version,
                "created": report.created,
                "kept": report.kept,
                "expires_at_ms": report.expires_at_ms,
            }
        )
    else:
        _show_report(report)


@app.command()
def show(
    folder: Annotated[
        Path | None, typer.Argument(help="The keys folder; default: MESSAGING_KEYS.", show_default=False)
    ] = None,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Show the bundle in words: services, keys and their states, grants, expiry.

    Its signature is checked against the roots that the key files beside it pin.

    Example: [bold]messaging trust show keys[/bold]
    """
    place = folder if folder is not None else Settings().keys
    if place is None:
        raise UsageError("say where the bundle is: name the folder, or set MESSAGING_KEYS")
    bundle = read_bundle(place)
    if as_json:
        print_json(_record(bundle))
    else:
        _show_bundle(bundle)


def read_bundle(folder: Path) -> TrustBundle:
    """Return the bundle of a keys folder, verified against the roots that a key file there pins.

    Raises:
        UsageError: there is no key file to take the roots from.
        ConfigurationError: no bundle, or it does not verify.
    """
    paths = key_files_in(folder)
    if not paths:
        raise UsageError(
            f"no key file in {folder} says which root keys to trust; name the folder that `trust init` made"
        )
    head = read_head(paths[0])
    roots = [VerifyKey(bytes.fromhex(root), realm=head.realm) for root in head.roots]
    path = folder / BUNDLE_FILE
    if not path.exists():
        raise ConfigurationError(
            f"no trust bundle at {path}; run `messaging trust init` or name the folder that has it"
        )
    raw = path.read_bytes()
    return verify_bundle(raw, roots=roots, threshold=head.threshold, realm=head.realm)


def _show_report(report: InitReport) -> None:
    line(f"Keys and bundle version {report.version} are in {report.folder} (realm {report.realm}).")
    for path in report.created:
        line(f"  new   {path.name}")
    for path in report.kept:
        line(f"  kept  {path.name}")
    line(f"For development: valid until {shown_time(report.expires_at_ms)}, accepted on a local broker only.")
    line(f"  export MESSAGING_KEYS={report.folder.resolve()}")


def _show_bundle(bundle: TrustBundle) -> None:
    now_ms = real_ambient().now_ms()
    left_s = (bundle.expires_at_ms - now_ms) / 1000
    until = f"expires in {shown_age(left_s)}" if left_s > 0 else f"EXPIRED {shown_age(-left_s)} ago"
    kind = "development " if bundle.is_development else ""
    line(f"Trust bundle version {bundle.version} of {kind}realm {bundle.realm}")
    line(f"issued {shown_time(bundle.issued_at_ms)}, {until} ({shown_time(bundle.expires_at_ms)})")
    table("Keys", ("IDENTITY", "ROLE", "KEY ID", "STATE", "PLANNED"), _key_rows(bundle))
    rules = [(r.sender, r.kind.word, r.name, r.to) for r in bundle.policy.rules]
    table("May send", ("FROM", "KIND", "NAME", "TO"), rules)
    heard = [(name, ", ".join(services)) for name, services in sorted(bundle.policy.subscribe.items())]
    table("May read events", ("EVENT", "SERVICES"), heard)
    grants = [(g.operator, g.name, g.to, "by force too" if g.force else "") for g in bundle.policy.replay]
    table("May replay", ("OPERATOR", "NAME", "IN", ""), grants)
    escrow = [
        kind.word for kind in (Kind.COMMAND, Kind.EVENT, Kind.REQUEST, Kind.REPLY) if bundle.policy.demands_escrow(kind)
    ]
    line(f"\nOperators can read: {', '.join(escrow) or 'nothing but faults'}")


def _key_rows(bundle: TrustBundle) -> list[tuple[str, str, str, str, str]]:
    rows = [
        (identity, "sign", kid.hex(), entry.state.value, _planned(entry))
        for identity, entries in sorted(bundle.signing.items())
        for kid, entry in entries.items()
    ]
    rows += [
        (identity, "encrypt", entry.key.kid.hex(), entry.state.value, _planned(entry))
        for identity, found in sorted(bundle.encryption.items())
        for entry in found
    ]
    return sorted(rows)


def _planned(entry: SigningEntry | EncryptionEntry) -> str:
    first = "" if entry.not_before_ms is None else f"from {shown_time(entry.not_before_ms)}"
    last = "" if entry.not_after_ms is None else f"until {shown_time(entry.not_after_ms)}"
    return f"{first} {last}".strip()


def _record(bundle: TrustBundle) -> dict[str, object]:
    policy = bundle.policy
    return {
        "realm": bundle.realm,
        "development": bundle.is_development,
        "version": bundle.version,
        "issued_at_ms": bundle.issued_at_ms,
        "expires_at_ms": bundle.expires_at_ms,
        "max_lifetime_ms": bundle.max_lifetime_ms,
        "services": bundle.services,
        "operators": bundle.operators,
        "groups": {group: sorted(members) for group, members in bundle.members.items()},
        "keys": [
            {"identity": identity, "role": role, "kid": kid, "state": state}
            for identity, role, kid, state, _ in _key_rows(bundle)
        ],
        "send": [{"from": r.sender, "kind": r.kind.word, "name": r.name, "to": r.to} for r in policy.rules],
        "subscribe": {name: list(services) for name, services in policy.subscribe.items()},
        "replay": [{"operator": g.operator, "name": g.name, "to": g.to, "force": g.force} for g in policy.replay],
    }
