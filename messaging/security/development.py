"""`DevelopmentTrust`: a throwaway realm inside one process, for examples and tests (docs/trust.md, "Development keys").

Real keys, a really signed bundle and the real policy checks: only who signs is convenient. Everybody who joins may send
to everybody known, operators may do everything, and every store sees a new bundle at once.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from messaging.core.ambient import Ambient
from messaging.core.names import check_service, is_operator, owner_of
from messaging.core.topology import Subscriptions
from messaging.errors import ConfigurationError
from messaging.security.bundle import OPS_GROUP
from messaging.security.bundle_format import DEVELOPMENT_REALM, sign_bundle
from messaging.security.keyring import Keyring
from messaging.security.keys import DecryptionKey, SigningKey
from messaging.security.suite import SUITE_1, fresh_bytes
from messaging.security.trust import TrustStore

__all__ = [
    "LIFE_MS",
    "MAX_LIFETIME_S",
    "DevelopmentTrust",
    "development_payload",
    "encryption_entry",
    "identity_entry",
    "key_entry",
]

LIFE_MS: Final = 14 * 24 * 3_600_000
MAX_LIFETIME_S: Final = 7 * 24 * 3600
ESCROW: Final = {"command": True, "event": True, "request": False, "reply": False}
RULE_KINDS: Final = ("command", "request", "event")

Json = dict[str, object]


class DevelopmentTrust:
    """One realm, made on the spot.

    Args:
        ambient: Gives the time.
        suites: Suites of its bundles; everybody has a key of each.
    """

    def __init__(self, *, ambient: Ambient, suites: Sequence[int] = (SUITE_1,)) -> None:
        self._ambient = ambient
        self._suites = tuple(suites)
        self._realm = DEVELOPMENT_REALM + fresh_bytes(8).hex()
        self._root = SigningKey.generate(self._realm)
        self._group_keys = tuple(DecryptionKey.generate(self._realm, suite) for suite in self._suites)
        self._keyrings: dict[str, Keyring] = {}
        self._stores: dict[str, TrustStore] = {}
        self._subscribe: dict[str, list[str]] = {}
        self._version = 0

    def join(self, service: str, subscriptions: Subscriptions = Subscriptions()) -> tuple[Keyring, TrustStore]:  # noqa: B008
        """Add a service, or what else it handles; twice is fine.

        Args:
            service: Its name.
            subscriptions: What it handles; its events are sealed to it from now on.

        Returns:
            Its keyring and the store that all of this realm's bundles appear in.

        Raises:
            ConfigurationError: The name breaks the grammar.
        """
        self._add(check_service(service))
        for event in sorted({name for name, _ in subscriptions.events}):
            readers = self._subscribe.setdefault(event, [])
            if service not in readers:
                readers.append(service)
        return self._published(service)

    def operator(self, name: str) -> tuple[Keyring, TrustStore]:
        """Add an operator, who may send, read dead letters and replay; twice is fine.

        Args:
            name: Such as `alice` or `ops:alice`.

        Raises:
            ConfigurationError: The name breaks the grammar.
        """
        identity = name if name.startswith("ops:") else f"ops:{name}"
        if not is_operator(identity):
            raise ConfigurationError(f"{name!r} cannot name an operator: use a to z, 0 to 9, _ and -, a letter first")
        self._add(identity)
        return self._published(identity)

    def _add(self, identity: str) -> None:
        if identity in self._keyrings:
            return
        keyring = Keyring.generate(identity, realm=self._realm, roots=(self._root.public,), suites=self._suites)
        if keyring.is_operator:
            keyring = keyring.with_group(OPS_GROUP, self._group_keys)
        self._keyrings[identity] = keyring
        self._stores[identity] = TrustStore(keyring, ambient=self._ambient)

    def renew(self) -> None:
        """Put a newer bundle in force that says the same: its life begins anew."""
        self._version += 1
        keyrings = self._keyrings.values()
        services = [keyring.service for keyring in keyrings if not keyring.is_operator]
        operators = [keyring.service for keyring in keyrings if keyring.is_operator]
        payload = development_payload(
            realm=self._realm,
            version=self._version,
            issued_at_ms=self._ambient.now_ms(),
            identities={keyring.service: identity_entry(keyring) for keyring in keyrings},
            group_keys=[encryption_entry(key) for key in self._group_keys],
            send=send_rules((*services, *operators), services),
            subscribe=self._subscribe,
            suites=self._suites,
        )
        raw = sign_bundle(payload, [self._root])
        for store in self._stores.values():
            store.replace(raw)

    def _published(self, identity: str) -> tuple[Keyring, TrustStore]:
        self.renew()
        return self._keyrings[identity], self._stores[identity]


def development_payload(
    *,
    realm: str,
    version: int,
    issued_at_ms: int,
    identities: Mapping[str, Json],
    group_keys: list[Json],
    send: list[Json],
    subscribe: Mapping[str, Iterable[str]],
    suites: Sequence[int] = (SUITE_1,),
) -> Json:
    """Return the content of a development bundle.

    Args:
        realm: Begins with `dev-`.
        version: Rises with every change.
        issued_at_ms: Unix milliseconds.
        identities: Key entries by service and operator.
        group_keys: Key entries of `group:ops`.
        send: Rules of `policy.send`.
        subscribe: Services by event.
        suites: Suites in use, first that of senders.
    """
    services = {name: entry for name, entry in identities.items() if not is_operator(name)}
    operators = {name: entry for name, entry in identities.items() if is_operator(name)}
    return {
        "realm": realm,
        "dev": True,
        "version": version,
        "issued": issued_at_ms,
        "expires": issued_at_ms + LIFE_MS,
        "suites": list(suites),
        "max_lifetime_s": MAX_LIFETIME_S,
        "services": services,
        "operators": operators,
        "groups": {OPS_GROUP: {"enc": group_keys, "members": sorted(operators)}},
        "revoked": [],
        "policy": {
            "send": send,
            "subscribe": {event: list(readers) for event, readers in subscribe.items()},
            "escrow": ESCROW,
            "replay": [
                {"operator": operator, "name": f"{owner}.*", "to": service, "force": True}
                for operator in operators
                for service in services
                for owner in sorted({*services, *map(owner_of, subscribe)})
            ],
        },
    }


def send_rules(senders: Iterable[str], owners: Iterable[str]) -> list[Json]:
    """Return rules by which each sender may send everything to each owner; only operators publish others' events."""
    targets = list(owners)
    return [
        {"from": sender, "kind": kind, "name": f"{owner}.*", "to": owner}
        for sender in senders
        for owner in targets
        for kind in RULE_KINDS
        if kind != "event" or is_operator(sender)
    ]


def identity_entry(keyring: Keyring) -> Json:
    """Return the public side of a keyring, all keys active."""
    return {
        "sign": [key_entry(key.kid, key.public.algorithm, key.public.raw) for key in keyring.signing],
        "enc": [encryption_entry(key) for key in keyring.decryption.values()],
    }


def encryption_entry(key: DecryptionKey) -> Json:
    """Return the public side of a decryption key, active."""
    return key_entry(key.kid, key.public.algorithm, key.public.raw)


def key_entry(kid: bytes, algorithm: int, public: bytes) -> Json:
    """Return an active key as a bundle lists it."""
    return {
        "kid": kid.hex(),
        "alg": algorithm,
        "pub": public.hex(),
        "state": "active",
        "not_before": None,
        "not_after": None,
    }
