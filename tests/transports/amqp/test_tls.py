"""TLS against a real broker: what works, and what each thing that is wrong looks like to the one who must mend it."""

import asyncio
import ssl
from pathlib import Path
from typing import Any, Final

import pytest
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from messaging.ambient import real_ambient
from messaging.cli.broker_node import free_port
from messaging.core.topology import Names
from messaging.errors import ConfigurationError, ConnectionLostError, MessagingError
from messaging.transports.amqp.connection import Connection
from messaging.transports.amqp.errors import Node
from messaging.transports.amqp.tls import Tls, refusal_after_handshake, tls_error
from messaging.transports.amqp.transport import AmqpTransport
from scripts.dev_certs import Authority, Issued
from tests.support.proxy import TcpProxy
from tests.support.tls import ADDRESS, TlsNode, expired, tls_of_client
from tests.support.waiting import eventually

broker = pytest.mark.broker
USER: Final = "shop"


@pytest.fixture(scope="module")
def issued(tls_node: TlsNode) -> Issued:
    """A client's certificate whose common name is a user of the node."""
    tls_node.add_user(USER)
    return tls_node.authority.issue_client(USER, USER)


async def opened(url: str, tls: Tls) -> Connection:
    return await Connection.open(Node.parse(url, tls), name="test", heartbeat_s=10, timeout_s=30.0)


async def refused(url: str, tls: Tls) -> str:
    """Return the one line that says why there is no connection."""
    with pytest.raises(ConfigurationError) as caught:
        await opened(url, tls)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@broker
class TestRealBroker:
    async def test_a_password_over_a_verified_connection(self, tls_node: TlsNode, issued: Issued) -> None:
        connection = await opened(tls_node.guest_url, tls_of_client(tls_node, issued))

        assert connection.is_open
        await eventually(lambda: are_connected(tls_node, "guest"))
        await connection.aclose()

    async def test_a_certificate_is_the_login(self, tls_node: TlsNode, issued: Issued) -> None:
        connection = await opened(tls_node.tls_url, tls_of_client(tls_node, issued))

        await eventually(lambda: are_connected(tls_node, USER))
        await connection.aclose()

    async def test_another_ca(self, tls_node: TlsNode, issued: Issued) -> None:
        tls = Tls(ca_file=tls_node.stranger.certificate_file, cert_file=issued.certificate, key_file=issued.key)

        said = await refused(tls_node.tls_url, tls)

        assert f"not vouched for by the CAs in {tls.ca_file}" in said
        assert "MESSAGING_TLS_CA_FILE" in said

    async def test_no_ca_named_means_those_of_the_system(self, tls_node: TlsNode, issued: Issued) -> None:
        said = await refused(tls_node.tls_url, Tls(cert_file=issued.certificate, key_file=issued.key))

        assert "the system's CAs" in said

    async def test_another_name(self, tls_node: TlsNode, issued: Issued) -> None:
        url = tls_node.tls_url.replace("localhost", ADDRESS)

        said = await refused(url, tls_of_client(tls_node, issued))

        assert f"is not for '{ADDRESS}'" in said
        assert "MESSAGING_TLS_SERVER_NAME" in said
        connection = await opened(url, tls_of_client(tls_node, issued, server_name="localhost"))
        await connection.aclose()

    async def test_no_client_certificate(self, tls_node: TlsNode) -> None:
        said = await refused(tls_node.guest_url, tls_of_client(tls_node, None))

        assert "demands a client certificate: set MESSAGING_TLS_CERT_FILE" in said

    async def test_an_expired_client_certificate(self, tls_node: TlsNode) -> None:
        late = tls_node.authority.issue_client("late", USER, **expired())

        said = await refused(tls_node.tls_url, tls_of_client(tls_node, late))

        assert f"refuses the client certificate {late.certificate} (it has expired)" in said

    async def test_a_client_certificate_of_another_ca(self, tls_node: TlsNode) -> None:
        forged = tls_node.stranger.issue_client(USER, USER)

        said = await refused(tls_node.tls_url, tls_of_client(tls_node, forged))

        assert "its CA is unknown there" in said

    async def test_a_certificate_of_no_user(self, tls_node: TlsNode) -> None:
        unknown = tls_node.authority.issue_client("nobody", "nobody")

        said = await refused(tls_node.tls_url, tls_of_client(tls_node, unknown))

        assert "its common name must be a user there" in said

    async def test_an_expired_broker_until_it_is_renewed_in_place(self, tls_node: TlsNode, issued: Issued) -> None:
        authority, tls = tls_node.authority, tls_of_client(tls_node, issued)
        tls_node.present(authority.issue_broker("late", ["localhost"], **expired()))
        try:
            said = await refused(tls_node.tls_url, tls)
        finally:
            tls_node.present(authority.issue_broker("broker", ["localhost"]))

        assert "has expired: renew it at the broker" in said
        connection = await opened(tls_node.tls_url, tls)
        await connection.aclose()

    async def test_tls_to_a_plain_port(self, tls_node: TlsNode, issued: Issued) -> None:
        said = await refused(f"amqps://guest:guest@localhost:{tls_node.port}/", tls_of_client(tls_node, issued))

        assert "does not speak TLS on this port" in said

    async def test_plain_to_a_tls_port(self, tls_node: TlsNode) -> None:
        with pytest.raises(ConnectionLostError, match="write amqps:// if that port speaks TLS"):
            await opened(f"amqp://guest:guest@localhost:{tls_node.tls_port}/", Tls())

    async def test_a_broker_that_takes_no_certificates_for_a_login(self, tls_node: TlsNode, issued: Issued) -> None:
        tls_node.ctl("eval", "application:set_env(rabbit, auth_mechanisms, ['PLAIN']).")
        try:
            said = await refused(tls_node.tls_url, tls_of_client(tls_node, issued))
        finally:
            tls_node.ctl("eval", "application:set_env(rabbit, auth_mechanisms, ['PLAIN', 'EXTERNAL']).")

        assert "rabbitmq_auth_mechanism_ssl" in said

    async def test_a_renewed_certificate_is_in_use_from_the_next_connection_on(self, tls_node: TlsNode) -> None:
        authority = tls_node.authority
        for user in ("before", "after"):
            tls_node.add_user(user)
        certificate = authority.issue_client("renewed", "before")
        transport = AmqpTransport([tls_node.tls_url], ambient=real_ambient(), tls=tls_of_client(tls_node, certificate))
        await transport.connect()
        await transport.declare(Names("renewal").shared())
        await eventually(lambda: are_connected(tls_node, "before", "before"))

        authority.issue_client("renewed", "after")
        await asyncio.to_thread(tls_node.ctl, "close_all_connections", "test")

        await eventually(lambda: are_connected(tls_node, "after", "after"), what="the renewed certificate is in use")
        await transport.aclose()


async def are_connected(node: TlsNode, *users: str) -> bool:
    """Tell whether just these are; asked in a thread, as the connection that is asked for has work to do meanwhile."""
    return (await asyncio.to_thread(node.ctl, "list_connections", "user")).split()[1:] == list(users)


class TestFiles:
    @pytest.fixture
    def authority(self, tmp_path: Path) -> Authority:
        return Authority(tmp_path)

    def test_the_broker_is_always_verified(self) -> None:
        context = Tls().context()

        assert context.verify_mode is ssl.CERT_REQUIRED
        assert context.check_hostname
        assert context.minimum_version is ssl.TLSVersion.TLSv1_2

    def test_certificate_and_key_may_be_one_file(self, authority: Authority, tmp_path: Path) -> None:
        issued = authority.issue_client("orders", "orders")
        both = tmp_path / "both.pem"
        both.write_bytes(issued.certificate.read_bytes() + issued.key.read_bytes())

        assert Tls(ca_file=authority.certificate_file, cert_file=both).context()

    @pytest.mark.parametrize("field", ["ca_file", "cert_file", "key_file"])
    def test_a_file_that_is_not_there_is_named_with_its_setting(
        self, field: str, authority: Authority, tmp_path: Path
    ) -> None:
        issued = authority.issue_client("orders", "orders")
        files: dict[str, Any] = {"cert_file": issued.certificate, "key_file": issued.key, field: tmp_path / "nowhere"}

        with pytest.raises(ConfigurationError) as caught:
            Tls(**files).context()

        assert f"cannot read {tmp_path / 'nowhere'} (No such file or directory)" in str(caught.value)
        assert f"MESSAGING_TLS_{field.upper()}" in str(caught.value)

    async def test_what_is_wrong_with_a_file_is_said_by_the_connection(self, tmp_path: Path) -> None:
        said = await refused(f"amqps://localhost:{free_port()}/", Tls(ca_file=tmp_path / "nowhere"))

        assert said.startswith(f"cannot read {tmp_path / 'nowhere'}")

    def test_a_key_of_another_certificate(self, authority: Authority) -> None:
        one, other = authority.issue_client("one", "one"), authority.issue_client("other", "other")

        with pytest.raises(ConfigurationError, match="does not belong to the certificate"):
            Tls(cert_file=one.certificate, key_file=other.key).context()

    def test_a_file_without_a_certificate(self, authority: Authority, tmp_path: Path) -> None:
        issued = authority.issue_client("orders", "orders")
        text = tmp_path / "text"
        text.write_text("nothing")

        with pytest.raises(ConfigurationError, match="holds no certificate in PEM form"):
            Tls(ca_file=text).context()
        with pytest.raises(ConfigurationError, match="no certificate and key in PEM form"):
            Tls(cert_file=text, key_file=issued.key).context()

    def test_a_sealed_key_is_refused_instead_of_asking_at_the_terminal(
        self, authority: Authority, tmp_path: Path
    ) -> None:
        issued = authority.issue_client("orders", "orders")
        key = load_pem_private_key(issued.key.read_bytes(), password=None)
        sealed = tmp_path / "sealed.key"
        sealed.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"s3cret")))

        with pytest.raises(ConfigurationError, match="sealed with a passphrase"):
            Tls(cert_file=issued.certificate, key_file=sealed).context()


@broker
async def test_a_broker_that_accepts_refuses_nothing(tls_node: TlsNode, issued: Issued) -> None:
    tls = tls_of_client(tls_node, issued)

    assert await refusal_after_handshake(tls, host="localhost", port=tls_node.tls_port) is None


@broker
async def test_a_broker_that_takes_its_time_for_the_handshake_still_says_why(tls_node: TlsNode) -> None:
    async with TcpProxy("localhost", tls_node.tls_port) as proxy:
        proxy.hold()
        asyncio.get_running_loop().call_later(1.5, proxy.release)

        refusal = await refusal_after_handshake(tls_of_client(tls_node, None), host="localhost", port=proxy.port)

    assert refusal is not None
    assert "CERTIFICATE_REQUIRED" in str(refusal) or "HANDSHAKE_FAILURE" in str(refusal)


async def test_nobody_there_refuses_nothing() -> None:
    assert await refusal_after_handshake(Tls(), host=ADDRESS, port=free_port()) is None


class TestMeaning:
    @pytest.mark.parametrize(
        ("reason", "kind", "words"),
        [
            ("SSLV3_ALERT_HANDSHAKE_FAILURE", ConfigurationError, "demands a client certificate"),
            ("TLSV1_ALERT_PROTOCOL_VERSION", ConfigurationError, "before 1.2"),
            ("UNSUPPORTED_PROTOCOL", ConfigurationError, "before 1.2"),
            ("SSLV3_ALERT_CERTIFICATE_REVOKED", ConfigurationError, "it was revoked"),
            ("UNEXPECTED_EOF_WHILE_READING", ConnectionLostError, "UNEXPECTED_EOF_WHILE_READING"),
        ],
    )
    def test_of_what_openssl_says(self, reason: str, kind: type[MessagingError], words: str) -> None:
        error = ssl.SSLError(1, "something")
        error.reason = reason

        meaning = tls_error(error, address="broker:5671", host="broker", tls=Tls())

        assert type(meaning) is kind
        assert words in str(meaning)
        assert "broker:5671" in str(meaning)

    @pytest.mark.parametrize(
        ("code", "words"), [(9, "is not valid yet"), (10, "has expired"), (62, "is not for 'other'"), (23, "revoked")]
    )
    def test_of_what_verification_says(self, code: int, words: str) -> None:
        error = ssl.SSLCertVerificationError(1, "something")
        error.verify_code, error.verify_message = code, "certificate revoked"

        meaning = tls_error(error, address="broker:5671", host="broker", tls=Tls(server_name="other"))

        assert isinstance(meaning, ConfigurationError)
        assert words in str(meaning)
