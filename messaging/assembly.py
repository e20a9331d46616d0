"""Builds the objects of a service or an operator from settings: transport, identity, trust, inbox, publisher.

The one place that chooses implementations; `Service` and the command line stand on it.
"""

import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import structlog

from messaging.ambient import real_ambient
from messaging.core.ambient import Ambient
from messaging.core.envelope import Envelope
from messaging.core.message import Message
from messaging.core.names import is_operator
from messaging.core.topology import Subscriptions
from messaging.errors import ConfigurationError
from messaging.runtime.parts import Parts
from messaging.runtime.publisher import Limits, Publisher
from messaging.runtime.replies import Replies, new_instance
from messaging.security.development import DevelopmentTrust
from messaging.security.keyfile import keyring_file, load_keyring
from messaging.security.keyring import Keyring
from messaging.security.open import Opener
from messaging.security.seal import Sealer
from messaging.security.trust import TrustStore, open_trust
from messaging.settings import Settings
from messaging.transports.amqp.tls import Tls
from messaging.transports.amqp.transport import AmqpTransport
from messaging.transports.base import Transport
from messaging.transports.memory import MemoryBroker, MemoryTransport

__all__ = ["build", "quieten", "tls_of", "trust_file"]

TRUST_FILE: Final = "trust.bundle"
_LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})

log = structlog.get_logger()


def build(
    settings: Settings,
    identity: str,
    subscriptions: Subscriptions,
    *,
    ambient: Ambient | None = None,
    wait_forever: bool = False,
    passphrase: bytes | None = None,
    on_published: Callable[[Message, Envelope], None] | None = None,
) -> Parts:
    """Return the objects of one service or operator; nothing is connected yet.

    Args:
        settings: What the installation decides.
        identity: Service, or `ops:<name>`.
        subscriptions: What it handles.
        ambient: Clock, ids, chance; the real ones by default.
        wait_forever: Whether connecting waits for the broker as long as it takes.
        passphrase: Opens the keyring; default: the first line of `passphrase_file`.
        on_published: Told of every command and event that went out.

    Raises:
        ConfigurationError: keys, bundle or settings do not allow it; the message names the remedy.
    """
    ambient = real_ambient() if ambient is None else ambient
    names = settings.names
    keyring, trust = _identify(settings, identity, subscriptions, ambient, passphrase)
    _refuse_development_keys(settings, trust)
    transport = _transport(settings, ambient, identity, wait_forever=wait_forever)
    opener = Opener(keyring, trust, names, ambient=ambient, subscriptions=subscriptions)
    instance = new_instance(ambient)
    replies = Replies(
        service=identity, instance=instance, names=names, transport=transport, opener=opener, ambient=ambient
    )
    sealer = Sealer(keyring, trust, names, ambient=ambient)
    publisher = Publisher(
        sender=identity,
        sealer=sealer,
        transport=transport,
        names=names,
        ambient=ambient,
        replies=replies,
        limits=Limits(
            publish_timeout_s=settings.publish_timeout_s,
            request_timeout_s=settings.request_timeout_s,
            lifetime_s=settings.lifetime_s,
            signature_batch_max=settings.signature_batch_max,
        ),
        on_published=on_published,
        makes_levels=settings.is_embedded,
    )
    return Parts(
        identity=identity,
        instance=instance,
        subscriptions=subscriptions,
        keyring=keyring,
        trust=trust,
        transport=transport,
        names=names,
        ambient=ambient,
        opener=opener,
        sealer=sealer,
        publisher=publisher,
        replies=replies,
    )


def trust_file(settings: Settings) -> Path | None:
    """Return the bundle's file, or None when keys are made in the process."""
    return None if settings.has_throwaway_keys else _keys_folder(settings) / TRUST_FILE


def quieten(settings: Settings) -> None:
    """In development, unless the application configured structlog itself, show warnings only and leave stdout alone."""
    if settings.has_throwaway_keys and not structlog.is_configured():
        structlog.configure(
            wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING),
            logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        )


def _identify(
    settings: Settings, identity: str, subscriptions: Subscriptions, ambient: Ambient, passphrase: bytes | None
) -> tuple[Keyring, TrustStore]:
    if settings.has_throwaway_keys:
        development = settings.shared(DevelopmentTrust, lambda: DevelopmentTrust(ambient=ambient))
        if is_operator(identity):
            return development.operator(identity)
        return development.join(identity, subscriptions)
    folder = _keys_folder(settings)
    secret = _passphrase(settings) if passphrase is None else passphrase
    keyring = load_keyring(folder / keyring_file(identity), passphrase=secret)
    if keyring.service != identity:
        raise ConfigurationError(
            f"{folder / keyring_file(identity)} holds the keys of {keyring.service!r}, not of {identity!r}"
        )
    trust = open_trust(keyring, folder / TRUST_FILE, ambient=ambient, minimum_version=settings.trust_min_version)
    return keyring, trust


def _keys_folder(settings: Settings) -> Path:
    if settings.keys is None:
        raise ConfigurationError(
            "no keys: set MESSAGING_KEYS to the folder that `messaging trust init` made, "
            "or use Settings.development() for throwaway keys"
        )
    return settings.keys


def _passphrase(settings: Settings) -> bytes | None:
    if settings.passphrase_file is None:
        return None
    try:
        lines = settings.passphrase_file.read_bytes().splitlines()
    except OSError as error:
        raise ConfigurationError(
            f"cannot read the passphrase file {settings.passphrase_file}: {error.strerror}; "
            "mend MESSAGING_PASSPHRASE_FILE"
        ) from error
    return lines[0] if lines else b""


def _refuse_development_keys(settings: Settings, trust: TrustStore) -> None:
    """Development keys lie in clear on a developer's disk: they must not guard a broker that others reach."""
    if settings.has_throwaway_keys and settings.is_embedded:
        return
    if not trust.current.is_development:
        return
    is_local = settings.is_embedded or all(urlsplit(url).hostname in _LOOPBACK for url in settings.broker_urls)
    if not is_local and not settings.allow_dev_keys:
        raise ConfigurationError(
            "development keys on a broker that is not on this machine: make real ones with `messaging trust init`, "
            "or set MESSAGING_ALLOW_DEV_KEYS=1 if nobody else reaches that broker"
        )
    if not settings.has_throwaway_keys:
        log.warning("trust.development_keys", realm=trust.current.realm)


def _transport(settings: Settings, ambient: Ambient, identity: str, *, wait_forever: bool) -> Transport:
    if settings.is_embedded:
        return MemoryTransport(settings.shared(MemoryBroker, MemoryBroker), ambient=ambient)
    return AmqpTransport(
        settings.broker_urls,
        ambient=ambient,
        connect_timeout_s=settings.connect_timeout_s,
        heartbeat_s=settings.heartbeat_s,
        fast=settings.fast,
        wait_forever=wait_forever,
        name=f"{identity} {Path(sys.argv[0]).name}",
        tls=tls_of(settings),
        declares=settings.declare,
    )


def tls_of(settings: Settings) -> Tls:
    """Return what this side brings to TLS connections."""
    return Tls(
        ca_file=settings.tls_ca_file,
        cert_file=settings.tls_cert_file,
        key_file=settings.tls_key_file,
        server_name=settings.tls_server_name,
    )
