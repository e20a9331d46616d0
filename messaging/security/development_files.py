"""`init_development`: a keys folder for a developer's machine, in one act (docs/trust.md, "Development keys").

It holds a key file for each service and for the operator, the bundle, and the throwaway root with what the bundle was
made from, so that a second run adds a service and keeps everybody's keys. Never beside keys of another kind.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from messaging.core.ambient import Ambient
from messaging.core.names import check_service, is_operator, owner_of
from messaging.core.topology import Subscriptions
from messaging.errors import ConfigurationError
from messaging.security.bundle import OPS_GROUP
from messaging.security.bundle_format import BUNDLE_MAX, DEVELOPMENT_REALM, sign_bundle, verify_bundle
from messaging.security.development import LIFE_MS, development_payload, encryption_entry, identity_entry, send_rules
from messaging.security.keyfile import keyring_file, load_keyring, write_keyring
from messaging.security.keyring import Keyring
from messaging.security.keys import DECRYPTION_KEY_BYTES, KEY_BYTES, DecryptionKey, SigningKey
from messaging.security.private_files import read_private, write_file
from messaging.security.strict_json import dump_json, load_json
from messaging.security.suite import SUITE_1, fresh_bytes
from messaging.security.trust import BUNDLE_FILE

__all__ = ["ROOT_FILE", "Contract", "InitReport", "init_development"]

ROOT_FILE: Final = "trust.root"
VERSION: Final = 1
PUBLIC_MODE: Final = 0o644
FOLDER_MODE: Final = 0o700

Json = dict[str, object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Contract:
    """What a service handles and sends.

    Attributes:
        handles: What its router reports.
        sends: Names of the commands and requests it may send; None lets it send everything to every known service.
    """

    handles: Subscriptions
    sends: frozenset[str] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class InitReport:
    """What a run did.

    Attributes:
        folder: The keys folder.
        realm: Its realm.
        version: Version of the bundle it wrote.
        created: Files that are new.
        kept: Key files that were there.
        expires_at_ms: End of the bundle's life, Unix milliseconds.
    """

    folder: Path
    realm: str
    version: int
    created: tuple[Path, ...]
    kept: tuple[Path, ...]
    expires_at_ms: int


@dataclass(slots=True, repr=False)
class _Workshop:
    # What the root file keeps between runs, also for services whose key files may be elsewhere by now.
    root: SigningKey
    group_key: DecryptionKey
    realm: str
    version: int = 0
    identities: dict[str, Json] = field(default_factory=dict)
    events: dict[str, tuple[str, ...]] = field(default_factory=dict)
    sends: dict[str, tuple[str, ...] | None] = field(default_factory=dict)


def init_development(
    folder: Path, services: Mapping[str, Contract], *, ambient: Ambient, operator: str = "dev", suite: int | None = None
) -> InitReport:
    """Make development keys and a bundle, or add services to those that are there.

    Args:
        folder: The keys folder; made if it is missing.
        services: Contracts by service.
        ambient: Gives the time.
        operator: Who may send by hand and replay, with or without `ops:`.
        suite: Suite of all keys; None: that of the folder, 1 of a new one.

    Raises:
        ConfigurationError: The folder holds keys that are not for development, a name breaks the grammar, or a file
            cannot be read or written.
    """
    person = operator if operator.startswith("ops:") else f"ops:{operator}"
    if not is_operator(person):
        raise ConfigurationError(f"{operator!r} cannot name an operator: use a to z, 0 to 9, _ and -, a letter first")
    created = _made_folder(folder)
    workshop = _workshop(folder, suite)
    kept: list[Path] = []
    for identity in (*map(check_service, services), person):
        path = folder / keyring_file(identity)
        new = not path.exists()
        keyring = _made_keyring(identity, path, workshop) if new else load_keyring(path)
        if keyring.realm != workshop.realm or keyring.service != identity:
            raise ConfigurationError(f"{path} is no key file of {identity!r} in realm {workshop.realm!r}; move it away")
        workshop.identities[identity] = identity_entry(keyring)
        (created if new else kept).append(path)
    for service, contract in services.items():
        workshop.events[service] = tuple(sorted({name for name, _ in contract.handles.events}))
        workshop.sends[service] = None if contract.sends is None else tuple(sorted(contract.sends))
    workshop.version += 1
    now_ms = ambient.now_ms()
    bundle = _bundle(workshop, now_ms)
    # Written only if every service will accept it.
    verify_bundle(bundle, roots=[workshop.root.public], threshold=1, realm=workshop.realm)
    # The root file first: a bundle whose root is lost could never be extended again.
    write_file(folder / ROOT_FILE, _packed(workshop), replace=True)
    write_file(folder / BUNDLE_FILE, bundle, replace=True, mode=PUBLIC_MODE)
    return InitReport(
        folder=folder,
        realm=workshop.realm,
        version=workshop.version,
        created=tuple(created),
        kept=tuple(kept),
        expires_at_ms=now_ms + LIFE_MS,
    )


def _made_folder(folder: Path) -> list[Path]:
    created: list[Path] = []
    try:
        if not folder.exists():
            folder.mkdir(parents=True)
            folder.chmod(FOLDER_MODE)
            created.append(folder)
    except OSError as exc:
        raise ConfigurationError(f"cannot make the keys folder {folder}: {exc.strerror}; name another one") from exc
    ignore = folder / ".gitignore"
    if not ignore.exists():
        write_file(ignore, b"# Private keys are never committed.\n*\n", mode=PUBLIC_MODE)
        created.append(ignore)
    return created


def _workshop(folder: Path, suite: int | None) -> _Workshop:
    root_path, bundle_path = folder / ROOT_FILE, folder / BUNDLE_FILE
    if root_path.exists():
        workshop = _unpacked(read_private(root_path), root_path)
        if suite not in (None, workshop.group_key.suite):
            raise ConfigurationError(
                f"the keys in {folder} are of suite {workshop.group_key.suite}; name another folder for suite {suite}"
            )
        if bundle_path.exists():
            raw = bundle_path.read_bytes()[: BUNDLE_MAX + 1]
            found = verify_bundle(raw, roots=[workshop.root.public], threshold=1, realm=workshop.realm)
            workshop.version = max(workshop.version, found.version)
        return workshop
    foreign = [path for path in (bundle_path, *sorted(folder.glob("*.key"))) if path.exists()]
    if foreign:
        raise ConfigurationError(
            f"{foreign[0]} was not made by `messaging trust init --dev`; name another folder for development keys"
        )
    realm = DEVELOPMENT_REALM + fresh_bytes(8).hex()
    return _Workshop(SigningKey.generate(realm), DecryptionKey.generate(realm, suite or SUITE_1), realm)


def _made_keyring(identity: str, path: Path, workshop: _Workshop) -> Keyring:
    suites = (workshop.group_key.suite,)
    keyring = Keyring.generate(identity, realm=workshop.realm, roots=(workshop.root.public,), suites=suites)
    if keyring.is_operator:
        keyring = keyring.with_group(OPS_GROUP, (workshop.group_key,))
    write_keyring(keyring, path)
    return keyring


def _bundle(workshop: _Workshop, now_ms: int) -> bytes:
    services = [name for name in workshop.identities if not is_operator(name)]
    operators = [name for name in workshop.identities if is_operator(name)]
    send = send_rules(operators, services)
    for service, names in workshop.sends.items():
        send += send_rules([service], services) if names is None else _named_rules(service, names, services)
    subscribe: dict[str, list[str]] = {}
    for service, events in workshop.events.items():
        for event in events:
            subscribe.setdefault(event, []).append(service)
    payload = development_payload(
        realm=workshop.realm,
        version=workshop.version,
        issued_at_ms=now_ms,
        identities=workshop.identities,
        group_keys=[encryption_entry(workshop.group_key)],
        send=send,
        subscribe=subscribe,
        suites=(workshop.group_key.suite,),
    )
    return sign_bundle(payload, [workshop.root])


def _named_rules(service: str, names: tuple[str, ...], known: list[str]) -> list[Json]:
    # The name's owner may be added by a later run; its rule appears then.
    return [
        {"from": service, "kind": kind, "name": name, "to": owner_of(name)}
        for name in names
        for kind in ("command", "request")
        if owner_of(name) in known
    ]


def _packed(workshop: _Workshop) -> bytes:
    return dump_json(
        {
            "v": VERSION,
            "realm": workshop.realm,
            "root": workshop.root.secret().hex(),
            "group": workshop.group_key.secret().hex(),
            "version": workshop.version,
            "identities": workshop.identities,
            "events": {name: list(events) for name, events in workshop.events.items()},
            "sends": {name: None if sends is None else list(sends) for name, sends in workshop.sends.items()},
        }
    )


def _unpacked(raw: bytes, path: Path) -> _Workshop:
    fields = load_json(raw, f"development root {path}")
    fields.integer("v", lowest=VERSION, highest=VERSION)
    realm = fields.text("realm")
    if not realm.startswith(DEVELOPMENT_REALM):
        fields.refuse(f"realm {realm!r} is not for development; name another folder")
    workshop = _Workshop(
        root=SigningKey(fields.octets("root", KEY_BYTES), realm=realm),
        group_key=DecryptionKey(fields.octets("group", *DECRYPTION_KEY_BYTES.values()), realm=realm),
        realm=realm,
        version=fields.integer("version"),
    )
    identities, events, sends = (fields.object(name) for name in ("identities", "events", "sends"))
    fields.end()
    for name in identities.names():
        workshop.identities[name] = identities.mapping(name)
    for name in events.names():
        workshop.events[name] = events.texts(name)
    for name in sends.names():
        workshop.sends[name] = sends.optional_texts(name)
    return workshop
