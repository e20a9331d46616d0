"""From settings to objects: whose keys, which broker, and what is refused with which remedy."""

from collections.abc import Iterator
from io import StringIO
from pathlib import Path

import pytest
import structlog

from messaging import ConfigurationError, Settings
from messaging.ambient import real_ambient
from messaging.assembly import build, quieten, trust_file
from messaging.core.topology import Subscriptions
from messaging.security.development_files import Contract, init_development
from messaging.security.keyfile import keyring_file, load_keyring, write_keyring
from messaging.transports.amqp.transport import AmqpTransport
from messaging.transports.memory import MemoryTransport
from tests.support.logs import Logs, captured_logs

NOTHING = Subscriptions()
OPERATOR = "ops:dev"


@pytest.fixture(autouse=True)
def logs() -> Iterator[Logs]:
    with captured_logs() as found:
        yield found


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "keys"
    contracts = {name: Contract(handles=NOTHING) for name in ("orders", "users")}
    init_development(made, contracts, ambient=real_ambient())
    return made


def with_keys(folder: Path, broker_url: str = "memory://", **values: object) -> Settings:
    return Settings(broker_url=broker_url, keys=folder, **values)


def test_throwaway_keys_of_the_same_settings_are_one_realm() -> None:
    settings = Settings.development()

    orders, users, again = (build(settings, name, NOTHING) for name in ("orders", "users", "orders"))

    assert orders.keyring.realm == users.keyring.realm
    assert orders.keyring is again.keyring
    assert orders.instance != again.instance
    assert build(Settings.development(), "orders", NOTHING).keyring.realm != orders.keyring.realm


def test_transports_of_the_same_settings_share_the_embedded_broker() -> None:
    settings = Settings.development()

    orders, users = (build(settings, name, NOTHING).transport for name in ("orders", "users"))

    assert isinstance(orders, MemoryTransport)
    assert isinstance(users, MemoryTransport)
    assert orders.broker is users.broker


def test_a_broker_url_means_rabbitmq() -> None:
    parts = build(Settings.development("amqp://127.0.0.1/"), "orders", NOTHING)

    assert isinstance(parts.transport, AmqpTransport)


def test_keys_come_from_the_folder(folder: Path) -> None:
    parts = build(with_keys(folder), "orders", NOTHING)

    assert parts.keyring.service == "orders"
    assert parts.trust.current.is_development


def test_without_a_folder_the_remedy_is_named() -> None:
    settings = Settings(broker_url="memory://")

    with pytest.raises(ConfigurationError, match=r"set MESSAGING_KEYS .* or use Settings\.development"):
        build(settings, "orders", NOTHING)
    with pytest.raises(ConfigurationError, match="MESSAGING_KEYS"):
        trust_file(settings)


def test_a_missing_key_file_is_named(folder: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"billing\.key"):
        build(with_keys(folder), "billing", NOTHING)


def test_a_missing_bundle_is_named(folder: Path) -> None:
    (folder / "trust.bundle").unlink()

    with pytest.raises(ConfigurationError, match=r"trust\.bundle"):
        build(with_keys(folder), "orders", NOTHING)


def test_keys_of_somebody_else_are_refused(folder: Path) -> None:
    (folder / "orders.key").unlink()
    (folder / "users.key").rename(folder / "orders.key")

    with pytest.raises(ConfigurationError, match="holds the keys of 'users', not of 'orders'"):
        build(with_keys(folder), "orders", NOTHING)


def test_a_bundle_below_the_lowest_version_is_refused(folder: Path) -> None:
    with pytest.raises(ConfigurationError, match="version"):
        build(with_keys(folder, trust_min_version=99), "orders", NOTHING)


def lock(folder: Path, passphrase: bytes) -> None:
    path = folder / keyring_file("orders")
    write_keyring(load_keyring(path), path, passphrase=passphrase, replace=True)


def test_a_passphrase_comes_from_the_first_line_of_its_file(folder: Path, tmp_path: Path) -> None:
    lock(folder, b"open sesame")
    file = tmp_path / "passphrase"
    file.write_bytes(b"open sesame\nand more\n")

    assert build(with_keys(folder, passphrase_file=file), "orders", NOTHING).keyring.service == "orders"


def test_a_passphrase_that_is_given_wins(folder: Path, tmp_path: Path) -> None:
    lock(folder, b"open sesame")
    file = tmp_path / "passphrase"
    file.write_bytes(b"wrong\n")

    parts = build(with_keys(folder, passphrase_file=file), "orders", NOTHING, passphrase=b"open sesame")

    assert parts.keyring.service == "orders"


@pytest.mark.parametrize("content", [b"", b"wrong\n", None])
def test_a_passphrase_that_does_not_open_is_refused(folder: Path, tmp_path: Path, content: bytes | None) -> None:
    lock(folder, b"open sesame")
    file = tmp_path / "passphrase"
    if content is not None:
        file.write_bytes(content)

    with pytest.raises(ConfigurationError, match="passphrase" if content is not None else "MESSAGING_PASSPHRASE_FILE"):
        build(with_keys(folder, passphrase_file=file), "orders", NOTHING)


@pytest.mark.parametrize("url", ["amqp://127.0.0.1/", "amqp://localhost:5673/vhost", "amqp://[::1]/", "memory://"])
def test_development_keys_serve_a_broker_on_this_machine_with_a_warning(folder: Path, logs: Logs, url: str) -> None:
    build(with_keys(folder, url), "orders", NOTHING)

    assert logs.events == ["trust.development_keys"]


@pytest.mark.parametrize("url", ["amqp://rabbit.example/", "amqp://127.0.0.1/,amqp://rabbit.example/"])
def test_development_keys_are_refused_on_a_broker_elsewhere(folder: Path, url: str) -> None:
    with pytest.raises(ConfigurationError, match="MESSAGING_ALLOW_DEV_KEYS=1"):
        build(with_keys(folder, url), "orders", NOTHING)

    assert build(with_keys(folder, url, allow_dev_keys=True), "orders", NOTHING).keyring.service == "orders"


def test_throwaway_keys_are_refused_on_a_broker_elsewhere() -> None:
    with pytest.raises(ConfigurationError, match="development keys"):
        build(Settings.development("amqp://rabbit.example/"), "orders", NOTHING)


def test_the_bundles_file_is_watched_only_where_there_is_one(folder: Path) -> None:
    assert trust_file(with_keys(folder)) == folder / "trust.bundle"
    assert trust_file(Settings.development()) is None


def test_in_development_only_warnings_are_shown_and_stdout_is_left_alone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    structlog.reset_defaults()
    stderr = StringIO()
    monkeypatch.setattr("sys.stderr", stderr)

    quieten(Settings.development())
    structlog.get_logger().info("message.published")
    structlog.get_logger().warning("delivery.retried")

    assert "delivery.retried" in stderr.getvalue()
    assert "message.published" not in stderr.getvalue()
    assert capsys.readouterr().out == ""


def test_an_application_that_configures_logs_itself_is_left_alone(logs: Logs, folder: Path) -> None:
    quieten(Settings.development())
    structlog.get_logger().info("message.published")
    assert logs.events == ["message.published"]

    structlog.reset_defaults()
    quieten(with_keys(folder))
    assert not structlog.is_configured()
