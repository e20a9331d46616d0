"""TLS to the broker: a fresh context for each connection, and what a failed handshake means.

Rules: the broker's certificate is always verified, its name included, and nothing switches that off; TLS 1.2 is the
oldest version; files are named, not kept, so a renewed certificate is in use from the next connection on.
"""

import asyncio
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from messaging.errors import ConfigurationError, ConnectionLostError, MessagingError

__all__ = ["Tls", "refusal_after_handshake", "tls_error"]

# X509_V_ERR_… of OpenSSL, as `SSLCertVerificationError.verify_code` has them.
_NOT_YET_VALID: Final = 9
_EXPIRED: Final = 10
_UNKNOWN_ISSUER: Final = frozenset({2, 18, 19, 20, 21})
_OTHER_NAME: Final = frozenset({62, 64})
# What OpenSSL says of an answer that is no TLS; which of them depends on its version and on the first bytes.
_NO_TLS: Final = frozenset({"WRONG_VERSION_NUMBER", "UNKNOWN_PROTOCOL", "HTTP_REQUEST", "RECORD_LAYER_FAILURE"})
# A busy broker takes its time for a handshake; once that is done, its refusal is on its way.
_HANDSHAKE_S: Final = 5.0
_REFUSAL_S: Final = 2.0
_ALERT: Final = "_ALERT_"
_DEMANDS: Final = frozenset({"CERTIFICATE_REQUIRED", "HANDSHAKE_FAILURE"})
_REFUSES: Final = {
    "UNKNOWN_CA": "its CA is unknown there",
    "CERTIFICATE_EXPIRED": "it has expired",
    "CERTIFICATE_REVOKED": "it was revoked",
    "BAD_CERTIFICATE": "it is not acceptable there",
    "CERTIFICATE_UNKNOWN": "it is not acceptable there",
    "UNSUPPORTED_CERTIFICATE": "its kind is not supported there",
    "ACCESS_DENIED": "it has no access",
    "DECRYPT_ERROR": "its key is another's",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Tls:
    """What this side brings to a TLS connection.

    Attributes:
        ca_file: PEM file of the CAs that may vouch for the broker; None: the system's.
        cert_file: PEM file of the client certificate with its chain; None: none is shown.
        key_file: PEM file of its key; None: it is in `cert_file`.
        server_name: The name that the broker's certificate must have; None: the host of the address.
    """

    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None
    server_name: str | None = None

    def context(self) -> ssl.SSLContext:
        """Return a context made from the files as they are now.

        Raises:
            ConfigurationError: A file cannot be read, or is not what it should be.
        """
        for path, setting in self._files():
            _require_readable(path, setting)
        try:
            context = ssl.create_default_context(ssl.Purpose.SERVER_AUTH, cafile=self.ca_file)
        except ssl.SSLError as error:
            raise ConfigurationError(
                f"{self.ca_file} holds no certificate in PEM form: name the CA's with MESSAGING_TLS_CA_FILE"
            ) from error
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        self.show_certificate(context)
        return context

    def show_certificate(self, context: ssl.SSLContext) -> None:
        """Give a context the client certificate, if there is one.

        Raises:
            ConfigurationError: It cannot be used.
        """
        if self.cert_file is None:
            return
        key = self.key_file or self.cert_file

        def refuse() -> str:
            # OpenSSL would ask at the terminal, and a service would wait there for ever.
            raise ConfigurationError(f"the key in {key} is sealed with a passphrase: name an unsealed one, mode 0600")

        try:
            context.load_cert_chain(self.cert_file, self.key_file, password=refuse)
        except ssl.SSLError as error:
            if error.reason == "KEY_VALUES_MISMATCH":
                said = f"the key in {key} does not belong to the certificate in {self.cert_file}: renew both together"
            else:
                said = f"no certificate and key in PEM form in {self.cert_file} and {key}"
            raise ConfigurationError(f"{said} (MESSAGING_TLS_CERT_FILE, MESSAGING_TLS_KEY_FILE)") from error

    def _files(self) -> list[tuple[Path, str]]:
        named = (
            (self.ca_file, "MESSAGING_TLS_CA_FILE"),
            (self.cert_file, "MESSAGING_TLS_CERT_FILE"),
            (self.key_file, "MESSAGING_TLS_KEY_FILE"),
        )
        return [(path, setting) for path, setting in named if path is not None]


async def refusal_after_handshake(tls: Tls, *, host: str, port: int) -> ssl.SSLError | None:
    """Return why a broker hangs up on our certificate, or None when it does not say.

    Under TLS 1.3 a broker judges the client's certificate after the client has finished. What we write in that moment
    lets the kernel throw away its last words, so this asks again and only listens.
    """
    try:
        async with asyncio.timeout(_HANDSHAKE_S):
            context = await asyncio.to_thread(tls.context)
            reader, writer = await asyncio.open_connection(
                host, port, ssl=context, server_hostname=tls.server_name or host
            )
        try:
            async with asyncio.timeout(_REFUSAL_S):
                await reader.read(1)
        finally:
            writer.transport.abort()
    except ssl.SSLError as error:
        return error
    except (OSError, ConfigurationError):
        return None
    return None


def tls_error(error: ssl.SSLError, *, address: str, host: str, tls: Tls) -> MessagingError:
    """Return what a failed handshake means.

    Args:
        error: What Python's ssl raised, at the handshake or at the first read after it.
        address: Host and port of the broker.
        host: The name that was asked for.
        tls: What we brought.
    """
    if isinstance(error, ssl.SSLCertVerificationError):
        return ConfigurationError(_unverified(error, address=address, host=tls.server_name or host, tls=tls))
    reason = getattr(error, "reason", None) or ""
    if reason in _NO_TLS:
        return ConfigurationError(
            f"broker {address} does not speak TLS on this port: name its TLS port (mostly 5671), or use amqp:// "
            "if it has none"
        )
    alert = reason.partition(_ALERT)[2]
    if alert in _DEMANDS and tls.cert_file is None:
        return ConfigurationError(
            f"broker {address} demands a client certificate: set MESSAGING_TLS_CERT_FILE and MESSAGING_TLS_KEY_FILE"
        )
    if alert in _REFUSES or alert in _DEMANDS:
        why = _REFUSES.get(alert, "its CA is unknown there")
        return ConfigurationError(
            f"broker {address} refuses the client certificate {tls.cert_file} ({why}): "
            "name one in MESSAGING_TLS_CERT_FILE that is valid and of a CA that the broker trusts"
        )
    if alert == "PROTOCOL_VERSION" or reason == "UNSUPPORTED_PROTOCOL":
        return ConfigurationError(f"broker {address} knows only versions of TLS before 1.2: update or configure it")
    return ConnectionLostError(
        f"the TLS handshake with broker {address} failed ({reason or error.strerror or error}); see the broker's log"
    )


def _unverified(error: ssl.SSLCertVerificationError, *, address: str, host: str, tls: Tls) -> str:
    whose = f"the certificate of broker {address}"
    if error.verify_code == _EXPIRED:
        return f"{whose} has expired: renew it at the broker, or set this machine's clock if that is wrong"
    if error.verify_code == _NOT_YET_VALID:
        return f"{whose} is not valid yet: set this machine's clock if that is wrong, or renew it at the broker"
    if error.verify_code in _OTHER_NAME:
        return (
            f"{whose} is not for {host!r}: connect by a name that it lists, have that name added, "
            "or say with MESSAGING_TLS_SERVER_NAME which name it must have"
        )
    if error.verify_code in _UNKNOWN_ISSUER:
        known = f"the CAs in {tls.ca_file}" if tls.ca_file else "the system's CAs"
        return f"{whose} is not vouched for by {known}: set MESSAGING_TLS_CA_FILE to the CA that issued it"
    return f"{whose} is not acceptable ({error.verify_message}): replace it at the broker"


def _require_readable(path: Path, setting: str) -> None:
    try:
        with path.open("rb"):
            pass
    except OSError as error:
        raise ConfigurationError(
            f"cannot read {path} ({error.strerror}): mend {setting} or the file's owner and mode"
        ) from error
