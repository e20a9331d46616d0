"""Translates what aio-pika, aiormq and sockets raise into our errors, which name the thing and the remedy.

Rules: an address is shown without user and password; what an operator must mend is a `ConfigurationError`, what may
pass by itself a `ConnectionLostError`.
"""

import re
import socket
import ssl
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import unquote

import aiormq
from aiormq.exceptions import AuthenticationError, ChannelClosed, ProbableAuthenticationError
from yarl import URL

from messaging.errors import (
    ConfigurationError,
    ConnectionLostError,
    MessageTooLargeError,
    MessagingError,
    PublishNotConfirmedError,
    TopologyConflictError,
)
from messaging.transports.amqp.tls import Tls, tls_error

__all__ = [
    "CLIENT_ERRORS",
    "Node",
    "OutcomeUnknownError",
    "Refusal",
    "blamed",
    "connect_error",
    "declare_error",
    "missing_error",
]

CLIENT_ERRORS: Final = (Exception,)
"""What the client library raises when a connection or channel fails: its own errors, those of sockets and frames, and a
bare `Exception` from calls that waited when the peer closed the socket. Only for blocks that hold one call of it."""

_PORTS: Final = {"amqp": 5672, "amqps": 5671}
_CHECK_URL: Final = "check MESSAGING_BROKER_URL"
# aiormq would take these from the address, the last of them to verify nothing.
_TLS_IN_URL: Final = frozenset({"cafile", "capath", "cadata", "certfile", "keyfile", "no_verify_ssl"})
_START_ONE: Final = f"start one with `messaging broker up` or {_CHECK_URL}"
_TOO_LARGE: Final = re.compile(r"message size (\d+) (?:is )?larger than (?:configured )?max(?:imum)? size (\d+)")


class OutcomeUnknownError(Exception):
    """The channel is gone before the broker confirmed. `reason` is what the broker or the socket said."""

    def __init__(self, reason: BaseException | None) -> None:
        super().__init__(str(reason))
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why the broker closed the connection: its code and text."""

    code: int
    text: str


@dataclass(frozen=True, slots=True)
class Node:
    """One address of the broker, and what we bring to a TLS connection there."""

    url: URL
    tls: Tls = field(default_factory=Tls)

    @classmethod
    def parse(cls, text: str, tls: Tls | None = None) -> "Node":
        """Return the node that a URL names.

        Raises:
            ConfigurationError: It is no AMQP address. The text itself is not shown: it may hold a password.
        """
        try:
            url = URL(text.strip())
            port = url.port
        except ValueError as error:
            raise ConfigurationError(
                "MESSAGING_BROKER_URL is no URL: write amqp://user:password@host:5672/, "
                "with special characters of the password as %XX"
            ) from error
        if url.scheme not in _PORTS or not url.host:
            raise ConfigurationError(
                "MESSAGING_BROKER_URL must begin with amqp:// or amqps:// and name a host, "
                f"not with {url.scheme or 'nothing'!r}"
            )
        if _TLS_IN_URL & url.query.keys():
            raise ConfigurationError(
                "MESSAGING_BROKER_URL names files of TLS or switches its checks off: name the files with "
                "MESSAGING_TLS_CA_FILE, MESSAGING_TLS_CERT_FILE and MESSAGING_TLS_KEY_FILE; the checks stay on"
            )
        return cls(url if port else url.with_port(_PORTS[url.scheme]), tls or Tls())

    @property
    def address(self) -> str:
        """Host and port, without user and password."""
        return f"{self.url.host}:{self.url.port}"

    @property
    def user(self) -> str:
        """The user that connects, when it does so with a password."""
        return self.url.user or "guest"

    @property
    def who(self) -> str:
        """The user that connects, for people."""
        return f"user of {self.tls.cert_file}" if self.is_known_by_certificate else f"user {self.user!r}"

    @property
    def is_known_by_certificate(self) -> bool:
        """Whether we log in by our client certificate: there is one, and the address names no user."""
        return self.url.scheme == "amqps" and self.tls.cert_file is not None and self.url.user is None

    @property
    def virtual_host(self) -> str:
        """The virtual host."""
        return unquote(self.url.raw_path[1:]) or "/"


def connect_error(error: BaseException, node: Node, refusal: Refusal | None) -> MessagingError:
    """Return what a failed attempt to connect means.

    Args:
        error: What the client raised.
        node: Where to.
        refusal: What the broker said when it closed the connection, if it did.
    """
    if isinstance(error, AuthenticationError) and node.is_known_by_certificate:
        return ConfigurationError(
            f"broker {node.address} takes no certificate for a login: enable rabbitmq_auth_mechanism_ssl and EXTERNAL "
            "there, or put user and password into MESSAGING_BROKER_URL"
        )
    if isinstance(error, AuthenticationError):
        return ConfigurationError(
            f"broker {node.address} offers none of the ways to log in that this client knows; {_CHECK_URL}"
        )
    if isinstance(error, ProbableAuthenticationError):
        refusal = refusal or Refusal(403, str(error))
    if refusal is not None:
        return _refused(node, refusal)
    handshake = next((cause for cause in (error.__cause__, error) if isinstance(cause, ssl.SSLError)), None)
    if handshake is not None:
        return tls_error(handshake, address=node.address, host=node.url.host or "", tls=node.tls)
    return ConnectionLostError(f"no broker at {node.address} ({_cause(error)}); {_remedy(error, node)}")


def _refused(node: Node, refusal: Refusal) -> MessagingError:
    if refusal.code == 403:
        return ConfigurationError(f"broker {node.address} refuses {node.who}: {_check_login(node)}")
    if "not found" in refusal.text:
        return ConfigurationError(
            f"broker {node.address} has no virtual host {node.virtual_host!r}: "
            "correct the path of MESSAGING_BROKER_URL or create it with `rabbitmqctl add_vhost`"
        )
    if refusal.code == 530 and "refused for user" in refusal.text:
        return ConfigurationError(
            f"broker {node.address} keeps {node.who} out of virtual host {node.virtual_host!r}: "
            "grant it with `rabbitmqctl set_permissions` or correct MESSAGING_BROKER_URL"
        )
    return ConnectionLostError(f"broker {node.address} closed the connection ({refusal.text}); see the broker's log")


def _check_login(node: Node) -> str:
    if node.is_known_by_certificate:
        return "its common name must be a user there (`messaging topology export --permissions` makes them)"
    return "check user and password in MESSAGING_BROKER_URL"


def _cause(error: BaseException) -> str:
    root = error.__cause__ if isinstance(error.__cause__, OSError) else error
    if isinstance(root, TimeoutError) and not root.args:
        return "no answer in time"
    if isinstance(root, ConnectionRefusedError):
        return "connection refused"
    if isinstance(root, OSError) and root.strerror:
        return root.strerror
    return str(root) or type(root).__name__


def _remedy(error: BaseException, node: Node) -> str:
    if isinstance(error.__cause__, socket.gaierror):
        return f"{_CHECK_URL}: the host name cannot be resolved"
    hung_up = isinstance(error.__cause__, ConnectionResetError) or not isinstance(error.__cause__, OSError)
    if node.url.scheme == "amqp" and hung_up and not isinstance(error, TimeoutError):
        # It listened and hung up on the first bytes, which is how a port for TLS answers a plain client.
        return f"write amqps:// if that port speaks TLS; else see the broker's log, or {_CHECK_URL}"
    return _START_ONE


def declare_error(error: BaseException, what: str, arguments: object) -> MessagingError:
    """Return what a refused declaration means.

    Args:
        error: What the client raised.
        what: The thing, such as `queue 'messaging.orders.commands'`.
        arguments: What we asked for.
    """
    said = str(error)
    match error:
        case aiormq.ChannelPreconditionFailed():
            return TopologyConflictError(
                f"{what} exists with other arguments: wanted {arguments}; the broker says {said!r}. "
                "Compare with `messaging topology plan`. It may hold work, so do not delete it: set it back, or "
                "let it run empty beside a new one (docs/operations.md, Arguments that differ)"
            )
        case aiormq.ChannelNotFoundEntity():
            return TopologyConflictError(
                f"{what} needs something that does not exist: {said!r}; run `messaging topology apply`"
            )
        case aiormq.ChannelLockedResource():
            return TopologyConflictError(f"{what} belongs to another connection alone: {said!r}")
        case aiormq.ChannelAccessRefused():
            return ConfigurationError(
                f"{what} is forbidden to this user: {said!r}; grant it with `rabbitmqctl set_permissions`"
            )
        case TimeoutError():
            return ConnectionLostError(f"the broker did not answer in time about {what}; see its log")
        case _:
            return ConnectionLostError(f"the connection was lost at {what}: {said or type(error).__name__}")


def missing_error(what: str) -> MessagingError:
    """Return the error of something that does not exist and that this program does not make."""
    return TopologyConflictError(
        f"{what} does not exist, and by MESSAGING_DECLARE this program does not make it: "
        "run `messaging topology apply` with an account that may"
    )


def blamed(
    reason: BaseException | None, *, exchange: str, routing_key: str, size_bytes: int
) -> TopologyConflictError | PublishNotConfirmedError | MessageTooLargeError | None:
    """Return the error of a message that made the broker close its channel, or None when it was not this message.

    The broker names the exchange or the size; messages that were merely on the same channel are sent again.
    """
    if not isinstance(reason, ChannelClosed):
        return None
    said = str(reason)
    about_exchange = f"exchange '{exchange}'" in said
    if isinstance(reason, aiormq.ChannelNotFoundEntity) and about_exchange:
        return TopologyConflictError(
            f"there is no exchange {exchange!r} to publish {routing_key!r} to; start the service that declares it or "
            "run `messaging topology apply`"
        )
    if isinstance(reason, aiormq.ChannelAccessRefused) and about_exchange:
        return PublishNotConfirmedError(
            f"the broker forbids this user to write to exchange {exchange!r}; grant it with "
            "`rabbitmqctl set_permissions`",
            refused=True,
        )
    found = _TOO_LARGE.search(said)
    if found is not None and int(found[1]) == size_bytes:
        return MessageTooLargeError(
            f"{size_bytes} bytes are more than the broker's max_message_size of {found[2]}; send a reference instead"
        )
    return None
