"""Looks at certificates: ours and those that the broker's nodes show, until when they hold, who may read the key.

Whether they fit together is what the login shows; this says what is about to run out before it does.
"""

import asyncio
import ssl
import stat
from collections.abc import AsyncIterator, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509

from messaging.assembly import tls_of
from messaging.cli.finding import Finding, failed, fine, warned
from messaging.core.ambient import Ambient
from messaging.errors import ConfigurationError
from messaging.settings import Settings
from messaging.transports.amqp.errors import Node

__all__ = ["check_tls"]

# Whoever renews by hand needs some working days.
_SOON: Final = timedelta(days=7)
_TIMEOUT_S: Final = 5.0
_RENEW_OURS: Final = "renew it in place: the next connection reads it"
_RENEW_THEIRS: Final = "renew it at the broker"


async def check_tls(settings: Settings, *, ambient: Ambient) -> AsyncIterator[Finding]:
    """Yield how the certificates are, when an address of the broker asks for TLS; nothing else.

    Args:
        settings: Addresses and files.
        ambient: The clock.
    """
    nodes = [Node.parse(url, tls_of(settings)) for url in settings.broker_urls if url.startswith("amqps://")]
    if not nodes:
        return
    now = datetime.fromtimestamp(ambient.now_ms() / 1000, tz=UTC)
    try:
        await asyncio.to_thread(nodes[0].tls.context)
    except ConfigurationError as error:
        yield failed("tls files", str(error), remedy="mend it; nothing connects until then")
        return
    for finding in _own(settings, now):
        yield finding
    for node in nodes:
        check = f"tls broker {node.address}"
        try:
            shown = await _certificate_of(node)
        except (OSError, TimeoutError, ValueError) as error:
            yield failed(
                check, f"no certificate: {str(error) or 'no answer'}", remedy="see what `broker` and `login` say"
            )
        else:
            yield _judged(check, [shown], now, remedy=_RENEW_THEIRS)


def _own(settings: Settings, now: datetime) -> Iterator[Finding]:
    if settings.tls_ca_file is None:
        yield fine("tls ca", "the system's CAs vouch for the broker")
    else:
        yield _judged("tls ca", _certificates(settings.tls_ca_file), now, remedy="take over the CA's new certificate")
    if settings.tls_cert_file is None:
        return
    yield _judged("tls certificate", _certificates(settings.tls_cert_file)[:1], now, remedy=_RENEW_OURS)
    key = settings.tls_key_file or settings.tls_cert_file
    if key.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        yield warned("tls key", f"others on this machine may read {key}", remedy=f"chmod 600 {key}")
    else:
        yield fine("tls key", f"{key} is for its owner alone")


def _certificates(path: Path) -> list[x509.Certificate]:
    # The context was made from it, so it holds one at least.
    return x509.load_pem_x509_certificates(path.read_bytes())


def _judged(check: str, certificates: Sequence[x509.Certificate], now: datetime, *, remedy: str) -> Finding:
    first = min(certificates, key=lambda certificate: certificate.not_valid_after_utc)
    ends = first.not_valid_after_utc
    words = f"{first.subject.rfc4514_string()} until {ends:%Y-%m-%d %H:%M} UTC"
    if ends <= now:
        return failed(check, f"has expired: {words}", remedy=remedy)
    return warned(check, f"ends soon: {words}", remedy=remedy) if ends <= now + _SOON else fine(check, words)


async def _certificate_of(node: Node) -> x509.Certificate:
    # It is looked at, not believed: the login verifies it, and says what is wrong with it.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    node.tls.show_certificate(context)
    async with asyncio.timeout(_TIMEOUT_S):
        _, writer = await asyncio.open_connection(
            node.url.host, node.url.port, ssl=context, server_hostname=node.tls.server_name or node.url.host
        )
    try:
        shown: bytes | None = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        return x509.load_der_x509_certificate(shown or b"")
    finally:
        writer.transport.abort()
