"""Asks a broker who it is: the first frame that it sends holds product and version, before any user has logged in.

So `doctor` can name the version even when the credentials are wrong.
"""

import asyncio
import ssl
from dataclasses import dataclass
from typing import Final

import pamqp.commands
import pamqp.exceptions
import pamqp.frame

from messaging.errors import ConnectionLostError
from messaging.transports.amqp.errors import Node
from messaging.transports.amqp.tls import Tls

__all__ = ["Greeting", "greeting_of"]

_PROTOCOL_HEADER: Final = b"AMQP\x00\x00\x09\x01"
_FRAME_HEADER_BYTES: Final = 7
_FRAME_END_BYTES: Final = 1
_GREETING_MAX_BYTES: Final = 64 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Greeting:
    """Who a broker says it is, before anybody has logged in: a claim.

    Attributes:
        product: Such as `RabbitMQ`.
        version: Such as `3.10.8`.
        cluster: Name of the cluster.
    """

    product: str
    version: str
    cluster: str

    @property
    def release(self) -> tuple[int, int] | None:
        """Major and minor version, or None when they cannot be read."""
        parts = self.version.split(".")[:2]
        if len(parts) < 2 or not all(part.isascii() and part.isdigit() and len(part) < 6 for part in parts):
            return None
        return int(parts[0]), int(parts[1])


async def greeting_of(url: str, *, timeout_s: float, tls: Tls | None = None) -> Greeting:
    """Return how the broker at an AMQP URL greets.

    Args:
        url: One address of the broker.
        timeout_s: Bound on everything, seconds.
        tls: A client certificate, where the broker demands one.

    Raises:
        ConnectionLostError: nobody answers there, or it is no AMQP broker.
        ConfigurationError: it is no AMQP URL, or the client certificate cannot be used.
    """
    node = Node.parse(url, tls)
    try:
        async with asyncio.timeout(timeout_s):
            return _read(await _first_frame(node))
    except TimeoutError:
        reason = f"no answer within {timeout_s:g} s"
    except ConnectionRefusedError:
        reason = "connection refused"
    except OSError as error:
        reason = error.strerror or str(error) or type(error).__name__
    except (asyncio.IncompleteReadError, pamqp.exceptions.PAMQPException, ValueError):
        reason = "what answers there is no AMQP 0-9-1 broker"
    raise ConnectionLostError(f"no broker at {node.address} ({reason})")


async def _first_frame(node: Node) -> bytes:
    tls = _tls_of(node.tls) if node.url.scheme == "amqps" else None
    reader, writer = await asyncio.open_connection(node.url.host, node.url.port, ssl=tls)
    try:
        writer.write(_PROTOCOL_HEADER)
        head = await reader.readexactly(_FRAME_HEADER_BYTES)
        size_bytes = int.from_bytes(head[3:7], "big")
        if size_bytes > _GREETING_MAX_BYTES:
            raise ValueError("frame too large")
        return head + await reader.readexactly(size_bytes + _FRAME_END_BYTES)
    finally:
        # Nothing was agreed that a polite close would have to end.
        writer.transport.abort()


def _read(frame: bytes) -> Greeting:
    _, _, start = pamqp.frame.unmarshal(frame)
    if not isinstance(start, pamqp.commands.Connection.Start):
        raise pamqp.exceptions.PAMQPException
    said = start.server_properties or {}
    return Greeting(
        product=str(said.get("product", "unknown")),
        version=str(said.get("version", "unknown")),
        cluster=str(said.get("cluster_name", "")),
    )


def _tls_of(tls: Tls) -> ssl.SSLContext:
    """Return a context that takes any certificate: nothing secret is sent, and the login that follows does verify."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    tls.show_certificate(context)
    return context
