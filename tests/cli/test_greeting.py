"""Who answers at the broker's address: a broker, something else, nobody, silence."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pamqp.commands
import pamqp.frame
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from messaging.cli.broker_probe import free_port
from messaging.cli.greeting import Greeting, greeting_of
from messaging.errors import ConfigurationError, ConnectionLostError
from messaging.transports.amqp.tls import Tls

Answer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def listening(answer: Answer, *, tls: ssl.SSLContext | None = None) -> AsyncIterator[str]:
    ended = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await answer(reader, writer)
        finally:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()
            ended.set()

    async with await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls) as server:
        yield f"amqp://user:secret@127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        async with asyncio.timeout(5):
            await ended.wait()


def self_signed(folder: Path) -> tuple[Path, Path]:
    """Write a certificate that nobody vouches for, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "broker")])
    now = datetime.now(tz=UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    (folder / "cert.pem").write_bytes(certificate.public_bytes(Encoding.PEM))
    (folder / "key.pem").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return folder / "cert.pem", folder / "key.pem"


def saying(answer: bytes) -> Answer:
    async def say(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(8)
        writer.write(answer)

    return say


async def test_a_broker_tells_product_version_and_cluster() -> None:
    start = pamqp.commands.Connection.Start(
        server_properties={"product": "RabbitMQ", "version": "4.3.6", "cluster_name": "rabbit@one"}
    )
    async with listening(saying(pamqp.frame.marshal(start, 0))) as url:
        greeting = await greeting_of(url, timeout_s=5)

    assert greeting == Greeting(product="RabbitMQ", version="4.3.6", cluster="rabbit@one")
    assert greeting.release == (4, 3)


@pytest.mark.parametrize(
    "answer",
    [b"HTTP/1.1 400 Bad Request\r\n\r\n" + b"x" * 100, b"", b"\x01\x00\x00\xff\xff\xff\xff", b"AMQP\x00\x00\x09\x01"],
)
async def test_what_is_no_broker_is_named_so_without_the_password(answer: bytes) -> None:
    async with listening(saying(answer)) as url:
        with pytest.raises(ConnectionLostError, match=r"127\.0\.0\.1:\d+ \(.*no AMQP 0-9-1 broker") as caught:
            await greeting_of(url, timeout_s=5)

    assert "secret" not in str(caught.value)


async def test_nobody_listens() -> None:
    with pytest.raises(ConnectionLostError, match="no broker at"):
        await greeting_of(f"amqp://127.0.0.1:{free_port()}/", timeout_s=5)


async def test_silence_ends_at_the_deadline() -> None:
    async def silence(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async with listening(silence) as url:
        with pytest.raises(ConnectionLostError, match=r"no answer within 0\.1 s"):
            await greeting_of(url, timeout_s=0.1)


async def test_over_tls_the_version_is_told_whatever_the_certificate(tmp_path: Path) -> None:
    certificate, key = self_signed(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    start = pamqp.commands.Connection.Start(server_properties={"product": "RabbitMQ", "version": "4.3.6"})
    async with listening(saying(pamqp.frame.marshal(start, 0)), tls=context) as url:
        secure = url.replace("amqp://", "amqps://")
        greeting = await greeting_of(secure, timeout_s=5, tls=Tls(cert_file=certificate, key_file=key))

    assert greeting.version == "4.3.6"


async def test_a_frame_that_is_no_greeting() -> None:
    async with listening(saying(pamqp.frame.marshal(pamqp.commands.Connection.CloseOk(), 0))) as url:
        with pytest.raises(ConnectionLostError, match="no AMQP 0-9-1 broker"):
            await greeting_of(url, timeout_s=5)


async def test_what_is_no_amqp_url_is_a_configuration_error() -> None:
    with pytest.raises(ConfigurationError, match="amqp://"):
        await greeting_of("http://127.0.0.1/", timeout_s=1)


@pytest.mark.parametrize(
    ("version", "release"), [("3.10.8", (3, 10)), ("4.3.0-rc.1", (4, 3)), ("unknown", None), ("4", None)]
)
def test_releases(version: str, release: tuple[int, int] | None) -> None:
    assert Greeting(product="RabbitMQ", version=version, cluster="").release == release
