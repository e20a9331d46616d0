import socket
import ssl
from pathlib import Path

import aiormq
import pytest
from aiormq.exceptions import AuthenticationError, ProbableAuthenticationError

from messaging.errors import (
    ConfigurationError,
    ConnectionLostError,
    MessageTooLargeError,
    PublishNotConfirmedError,
    TopologyConflictError,
)
from messaging.transports.amqp.errors import Node, Refusal, blamed, connect_error, declare_error, missing_error
from messaging.transports.amqp.tls import Tls

NODE = Node.parse("amqp://orders:s3cret@broker.example/shop")


def caused(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


class TestNode:
    @pytest.mark.parametrize(
        ("url", "address", "virtual_host"),
        [
            ("amqp://broker", "broker:5672", "/"),
            ("amqp://broker/", "broker:5672", "/"),
            ("amqps://u:p@broker/%2F", "broker:5671", "/"),
            ("amqp://u:p@127.0.0.1:5673/a%2Fb", "127.0.0.1:5673", "a/b"),
            (" amqp://broker/shop\n", "broker:5672", "shop"),
        ],
    )
    def test_address_and_virtual_host(self, url: str, address: str, virtual_host: str) -> None:
        node = Node.parse(url)

        assert (node.address, node.virtual_host) == (address, virtual_host)

    @pytest.mark.parametrize("url", ["", "broker:5672", "http://u:s3cret@broker/", "amqp://", "amqp://h:s3cret:x/"])
    def test_what_is_no_amqp_address_is_refused_without_showing_it(self, url: str) -> None:
        with pytest.raises(ConfigurationError, match="MESSAGING_BROKER_URL") as caught:
            Node.parse(url)

        assert "s3cret" not in str(caught.value)

    @pytest.mark.parametrize("option", ["cafile=ca.crt", "certfile=a", "keyfile=a", "no_verify_ssl=1"])
    def test_tls_is_no_part_of_the_address(self, option: str) -> None:
        with pytest.raises(ConfigurationError, match="MESSAGING_TLS_CA_FILE"):
            Node.parse(f"amqps://broker/?{option}")

    @pytest.mark.parametrize(
        ("url", "expected"), [("amqps://broker/", True), ("amqps://u:p@broker/", False), ("amqp://broker/", False)]
    )
    def test_a_certificate_is_the_login_when_the_address_names_no_user(self, url: str, expected: bool) -> None:
        node = Node.parse(url, Tls(cert_file=Path("orders.crt")))

        assert node.is_known_by_certificate is expected
        assert ("orders.crt" in node.who) is expected
        assert not Node.parse(url).is_known_by_certificate

    def test_address_hides_the_password(self) -> None:
        assert NODE.address == "broker.example:5672"
        assert NODE.user == "orders"


class TestConnectError:
    @pytest.mark.parametrize(
        ("error", "refusal", "kind", "parts"),
        [
            (
                caused(aiormq.AMQPConnectionError(111, "x"), ConnectionRefusedError(111, "x")),
                None,
                ConnectionLostError,
                ["broker.example:5672", "connection refused", "messaging broker up"],
            ),
            (
                caused(aiormq.AMQPConnectionError(-2, "x"), socket.gaierror(-2, "Name or service not known")),
                None,
                ConnectionLostError,
                ["Name or service not known", "cannot be resolved"],
            ),
            (
                caused(aiormq.AMQPConnectionError(1, "x"), ssl.SSLError(1, "wrong version number")),
                None,
                ConnectionLostError,
                ["wrong version number", "TLS handshake"],
            ),
            (ssl.SSLError(1, "internal"), None, ConnectionLostError, ["TLS handshake", "broker's log"]),
            (TimeoutError(), None, ConnectionLostError, ["no answer in time"]),
            (Exception(), None, ConnectionLostError, ["broker.example:5672", "amqps:// if that port speaks TLS"]),
            (
                ProbableAuthenticationError("ACCESS_REFUSED"),
                None,
                ConfigurationError,
                ["'orders'", "user and password in MESSAGING_BROKER_URL"],
            ),
            (AuthenticationError("a", "b"), None, ConfigurationError, ["log in"]),
            (
                aiormq.InvalidFrameError("x"),
                Refusal(530, "NOT_ALLOWED - vhost shop not found"),
                ConfigurationError,
                ["virtual host 'shop'", "add_vhost"],
            ),
            (
                aiormq.InvalidFrameError("x"),
                Refusal(530, "NOT_ALLOWED - access to vhost 'shop' refused for user 'orders'"),
                ConfigurationError,
                ["set_permissions"],
            ),
            (
                aiormq.InvalidFrameError("x"),
                Refusal(541, "INTERNAL_ERROR - access to vhost 'shop' refused for user 'orders': vhost is down"),
                ConnectionLostError,
                ["vhost is down"],
            ),
        ],
    )
    def test_names_the_address_and_the_remedy(
        self, error: Exception, refusal: Refusal | None, kind: type[Exception], parts: list[str]
    ) -> None:
        meaning = connect_error(error, NODE, refusal)

        assert type(meaning) is kind
        assert "s3cret" not in str(meaning)
        for part in parts:
            assert part in str(meaning)

    def test_a_broker_that_knows_no_login_by_certificate(self) -> None:
        node = Node.parse("amqps://broker/", Tls(cert_file=Path("orders.crt")))

        meaning = connect_error(AuthenticationError("a", "b"), node, None)

        assert isinstance(meaning, ConfigurationError)
        assert "rabbitmq_auth_mechanism_ssl" in str(meaning)

    def test_a_certificate_that_names_no_user(self) -> None:
        node = Node.parse("amqps://broker/", Tls(cert_file=Path("orders.crt")))

        meaning = connect_error(ProbableAuthenticationError("ACCESS_REFUSED"), node, None)

        assert "orders.crt: its common name must be a user there" in str(meaning)


class TestDeclareError:
    @pytest.mark.parametrize(
        ("error", "kind"),
        [
            (aiormq.ChannelPreconditionFailed("inequivalent arg 'x-message-ttl'"), TopologyConflictError),
            (aiormq.ChannelNotFoundEntity("no exchange"), TopologyConflictError),
            (aiormq.ChannelLockedResource("locked"), TopologyConflictError),
            (aiormq.ChannelAccessRefused("refused"), ConfigurationError),
            (ConnectionResetError("gone"), ConnectionLostError),
            (TimeoutError(), ConnectionLostError),
            (Exception(), ConnectionLostError),
        ],
    )
    def test_says_what_was_refused(self, error: Exception, kind: type[Exception]) -> None:
        meaning = declare_error(error, "queue 'q'", {"x-message-ttl": 5})

        assert type(meaning) is kind
        assert "queue 'q'" in str(meaning)

    def test_what_is_missing_and_not_ours_to_make(self) -> None:
        meaning = missing_error("queue 'q'")

        assert isinstance(meaning, TopologyConflictError)
        assert all(part in str(meaning) for part in ("queue 'q'", "MESSAGING_DECLARE", "topology apply"))

    def test_conflict_shows_both_sides(self) -> None:
        said = "inequivalent arg 'x-message-ttl' for queue 'q': received '5' but current is '9'"

        meaning = str(declare_error(aiormq.ChannelPreconditionFailed(said), "queue 'q'", {"x-message-ttl": 5}))

        assert "{'x-message-ttl': 5}" in meaning
        assert "current is '9'" in meaning

    def test_conflict_sends_nobody_to_delete_what_may_hold_work(self) -> None:
        error = aiormq.ChannelPreconditionFailed("inequivalent arg 'x-message-ttl'")

        meaning = str(declare_error(error, "queue 'q'", {}))

        assert "do not delete it" in meaning
        assert "`messaging topology plan`" in meaning


class TestBlamed:
    @pytest.mark.parametrize(
        ("reason", "kind"),
        [
            (aiormq.ChannelNotFoundEntity("NOT_FOUND - no exchange 'x' in vhost '/'"), TopologyConflictError),
            (aiormq.ChannelNotFoundEntity("NOT_FOUND - no exchange 'xy' in vhost '/'"), None),
            (aiormq.ChannelAccessRefused("access to exchange 'x' in vhost '/' refused"), PublishNotConfirmedError),
            (
                aiormq.ChannelPreconditionFailed("message size 9 is larger than configured max size 5"),
                MessageTooLargeError,
            ),
            (aiormq.ChannelPreconditionFailed("message size 8 is larger than configured max size 5"), None),
            (aiormq.ChannelPreconditionFailed("message size 9 larger than max size 5"), MessageTooLargeError),
            (ConnectionResetError("no exchange 'x'"), None),
            (None, None),
        ],
    )
    def test_only_the_message_that_the_broker_names(
        self, reason: BaseException | None, kind: type[Exception] | None
    ) -> None:
        error = blamed(reason, exchange="x", routing_key="k", size_bytes=9)

        assert (None if error is None else type(error)) is kind
