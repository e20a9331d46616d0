"""`messaging trust`: who is known, by which keys, and who may send what to whom."""

from pathlib import Path
from typing import Annotated

import typer

from messaging.ambient import real_ambient
from messaging.cli import trust_change, trust_root, trust_sign
from messaging.cli.exits import UsageError
from messaging.cli.load import load_service
from messaging.cli.render import line, print_json, shown_age, shown_time, table
from messaging.cli.trust_first import first_trust
from messaging.cli.trust_sign import pins_beside
from messaging.core.envelope import Kind
from messaging.errors import ConfigurationError
from messaging.security.bundle import EncryptionEntry, SigningEntry, TrustBundle
from messaging.security.bundle_format import verify_bundle
from messaging.security.development_files import Contract, InitReport, init_development
from messaging.security.keys import EncryptionKey
from messaging.security.suite import SUITE_1, SUITE_2
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
        list[str] | None,
        typer.Option(
            "--from",
            metavar="MODULE:SERVICE",
            help="A service, whose contract makes the policy; repeat for several.",
            show_default=False,
        ),
    ] = None,
    dev: Annotated[bool, typer.Option("--dev", help="Development keys: 14 days, this machine only.")] = False,
    suite: Annotated[
        int | None,
        typer.Option(
            help="With --dev: suite of all keys, 2 is post-quantum; default: that of the folder, or 1.",
            min=SUITE_1,
            max=SUITE_2,
            show_default=False,
        ),
    ] = None,
    operator: Annotated[str, typer.Option(help="With --dev: who may send by hand and replay.")] = "dev",
    roots: Annotated[
        Path | None, typer.Option(help="Real trust: the roots file, trust.roots.", show_default=False)
    ] = None,
    parts: Annotated[
        list[Path] | None,
        typer.Option(
            "--part",
            metavar="FILE",
            help="Real trust: public part of one identity; repeat for all.",
            show_default=False,
        ),
    ] = None,
    days: Annotated[int, typer.Option(help="Real trust: how long the bundle is valid.", min=1, max=365)] = 7,
    max_lifetime_days: Annotated[int, typer.Option(help="Real trust: longest life of a message.", min=1, max=30)] = 7,
    closed: Annotated[
        bool,
        typer.Option("--closed", help="Real trust: services may send nothing but commands whose faults they handle."),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Make the first trust bundle from the services' own contracts.

    With --dev: keys for services and an operator, and the bundle that knows them all; a second run adds services, keeps
    every key and renews the bundle.

    Real trust: a draft from the roots file and the public parts of all identities, for the holders of root keys to
    sign. Each service may send what the others handle, name by name; the draft is shown, and `messaging trust deny`
    takes out what is too much.

    Example: [bold]messaging trust init --dev keys --from services.users:users --from services.orders:orders[/bold]
    """
    services = [load_service(source) for source in sources or ()]
    if not dev:
        first_trust(
            folder,
            services,
            roots=roots,
            parts=parts or (),
            days=days,
            max_lifetime_days=max_lifetime_days,
            closed=closed,
        )
        return
    if not services:
        raise UsageError("--dev needs --from MODULE:SERVICE for each service to make keys for")
    report = init_development(
        folder,
        {service.name: Contract(handles=service.subscriptions) for service in services},
        ambient=real_ambient(),
        operator=operator,
        suite=suite,
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
    """Return the bundle of a folder, verified against the roots that its roots file or a key file there pins.

    Raises:
        UsageError: there is neither to take the roots from.
        ConfigurationError: no bundle, or it does not verify.
    """
    if folder.is_file():
        raise UsageError(
            f"{folder} is a file: name the folder that has {BUNDLE_FILE} (single bundles: `messaging trust diff`)"
        )
    pins = pins_beside(folder)
    path = folder / BUNDLE_FILE
    if not path.exists():
        raise ConfigurationError(
            f"no trust bundle at {path}; run `messaging trust init` or name the folder that has it"
        )
    raw = path.read_bytes()
    return verify_bundle(raw, roots=pins.roots, threshold=pins.threshold, realm=pins.realm)


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
    line(f"suites {', '.join(map(str, bundle.suites))}: messages are sealed in suite {bundle.suite}")
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
    line()
    line(f"Operators can read: {', '.join(escrow) or 'nothing but faults'}")


def _key_rows(bundle: TrustBundle) -> list[tuple[str, str, str, str, str]]:
    rows = [
        (identity, "sign", kid.hex(), entry.state.value, _planned(entry))
        for identity, entries in sorted(bundle.signing.items())
        for kid, entry in entries.items()
    ]
    rows += [
        (identity, _use(entry.key), entry.key.kid.hex(), entry.state.value, _planned(entry))
        for identity, found in sorted(bundle.encryption.items())
        for entry in found
    ]
    return sorted(rows)


def _use(key: EncryptionKey) -> str:
    return "encrypt" if key.suite == SUITE_1 else f"encrypt, suite {key.suite}"


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
        "suites": list(bundle.suites),
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


# The order of the help: that of a ceremony.
app.add_typer(trust_root.app, name="root")
app.command("add")(trust_change.add)
app.command("remove")(trust_change.remove)
app.command("allow")(trust_change.allow_)
app.command("deny")(trust_change.deny_)
app.command("suites")(trust_change.suites)
app.command("revoke")(trust_change.revoke_)
app.command("renew")(trust_change.renew)
app.command("discard")(trust_change.discard)
app.command("diff")(trust_sign.diff)
app.command("sign")(trust_sign.sign)
app.command("verify")(trust_sign.verify)
