"""The broker of a Compose file: against a stand-in for Docker that records how it is called."""

import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from messaging.cli import broker_compose
from messaging.cli.broker_compose import ComposeBroker
from messaging.errors import ConfigurationError
from tests.support.programs import calls_of, write_program

ENGINE = 'case "$*" in *"ps -q"*) echo 4f2a;; esac'


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a Compose file on a machine whose Docker engine answers."""
    programs = tmp_path / "programs"
    programs.mkdir()
    write_program(programs, "docker", body=ENGINE)
    (tmp_path / "docker-compose.yml").write_text("services: {}\n")
    monkeypatch.setenv("PATH", str(programs))
    return tmp_path


@pytest.fixture
def broker_port(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """A port on which one AMQP greeting after another is answered."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    link, _ = server.accept()
                except OSError:
                    return
                with link:
                    link.recv(8)
                    link.sendall(b"\x01")

        thread = threading.Thread(target=serve)
        thread.start()
        monkeypatch.setattr(broker_compose, "_PORT", server.getsockname()[1])
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)
        thread.join(timeout=5.0)


def found(project: Path) -> ComposeBroker:
    compose = ComposeBroker.found(project)
    assert compose is not None
    return compose


def test_it_is_found_where_an_engine_answers_and_a_file_is(project: Path) -> None:
    assert found(project).file == project / "docker-compose.yml"


def test_the_standalone_program_serves_where_the_plugin_is_missing(project: Path) -> None:
    write_program(project / "programs", "docker", body='[ "$1" != compose ]')
    write_program(project / "programs", "docker-compose")

    found(project).stop()

    assert calls_of(project / "programs", "docker-compose")[-1].endswith("stop rabbitmq")


@pytest.mark.parametrize("body", ["exit 1", '[ "$1" != compose ]'])
def test_without_engine_or_compose_there_is_none(project: Path, body: str) -> None:
    write_program(project / "programs", "docker", body=body)

    assert ComposeBroker.found(project) is None


def test_without_docker_there_is_none(project: Path) -> None:
    (project / "programs" / "docker").unlink()

    assert ComposeBroker.found(project) is None


def test_without_a_file_there_is_none(project: Path) -> None:
    (project / "docker-compose.yml").unlink()

    assert ComposeBroker.found(project) is None


def test_a_docker_that_cannot_run_is_none(project: Path) -> None:
    (project / "programs" / "docker").write_bytes(b"\x00not a program")

    assert ComposeBroker.found(project) is None


def test_starting_waits_until_the_broker_answers(project: Path, broker_port: int) -> None:
    compose = found(project)

    compose.start(timeout_s=60.0)

    assert f"compose -f {compose.file} up -d rabbitmq" in calls_of(project / "programs", "docker")
    assert compose.is_ready
    assert compose.url == f"amqp://messaging:messaging@127.0.0.1:{broker_port}/"


def test_a_broker_that_never_answers_is_reported_with_the_command_to_look(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_program(project / "programs", "docker")
    monkeypatch.setattr(broker_compose, "_POLL_S", 0.01)

    with pytest.raises(ConfigurationError, match="docker compose logs rabbitmq"):
        found(project).start(timeout_s=0.05)


def test_a_failing_compose_is_reported_with_its_words(project: Path) -> None:
    compose = found(project)
    write_program(project / "programs", "docker", body="echo 'port is allocated' >&2; exit 1")

    with pytest.raises(ConfigurationError, match="port is allocated"):
        compose.stop()


def test_a_compose_that_hangs_is_given_up(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compose = found(project)
    write_program(project / "programs", "docker", body="exec /bin/sleep 60")
    monkeypatch.setattr(broker_compose, "_COMMAND_TIMEOUT_S", 0.2)

    with pytest.raises(ConfigurationError, match="took longer"):
        compose.stop()
