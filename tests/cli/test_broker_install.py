"""Installing RabbitMQ: against stand-ins for apt-get, so that no machine changes."""

import os
import shutil
from pathlib import Path

import pytest

from messaging.cli import broker_node
from messaging.cli.broker_install import ensure_server, is_installed
from messaging.errors import ConfigurationError
from tests.support.programs import calls_of, write_program

INSTALLS = 'for p in erl epmd rabbitmq-server; do printf "#!/bin/sh\\n" > "$0.d/$p"; done; /bin/chmod +x "$0.d"/*'


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A Debian without RabbitMQ, seen as root: apt-get is a stand-in that records its calls and installs stand-ins."""
    env = shutil.which("env")
    assert env is not None
    (tmp_path / "env").symlink_to(env)
    installed = tmp_path / "apt-get.d"
    installed.mkdir()
    write_program(tmp_path, "apt-get", body=INSTALLS)
    monkeypatch.setenv("PATH", f"{tmp_path}:{installed}")
    monkeypatch.setattr(broker_node, "_PACKAGE_FOLDERS", ())
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    return tmp_path


def test_root_on_debian_gets_it_installed(machine: Path) -> None:
    said: list[str] = []

    ensure_server(said.append)

    assert calls_of(machine, "apt-get") == ["update -qq", "install -y -qq --no-install-recommends rabbitmq-server"]
    assert said == ["Installing rabbitmq-server with apt-get (once) ..."]
    assert is_installed()


def test_what_is_installed_is_not_installed_again(machine: Path) -> None:
    ensure_server(lambda _: None)

    ensure_server(lambda _: None)

    assert len(calls_of(machine, "apt-get")) == 2


def test_nothing_is_installed_when_that_is_not_wanted(machine: Path) -> None:
    with pytest.raises(ConfigurationError, match="apt-get install rabbitmq-server"):
        ensure_server(lambda _: None, install=False)

    assert calls_of(machine, "apt-get") == []


def test_a_plain_user_is_told_what_to_install(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)

    with pytest.raises(ConfigurationError, match="apt-get install rabbitmq-server"):
        ensure_server(lambda _: None)

    assert calls_of(machine, "apt-get") == []


def test_a_failing_apt_get_is_reported_with_its_words(machine: Path) -> None:
    write_program(machine, "apt-get", body='echo "E: no network" >&2; exit 100')

    with pytest.raises(ConfigurationError, match="E: no network"):
        ensure_server(lambda _: None)


def test_an_apt_get_that_hangs_is_given_up(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_program(machine, "apt-get", body="exec /bin/sleep 60")
    monkeypatch.setattr("messaging.cli.broker_install._APT_TIMEOUT_S", 0.2)

    with pytest.raises(ConfigurationError, match="took longer"):
        ensure_server(lambda _: None)
