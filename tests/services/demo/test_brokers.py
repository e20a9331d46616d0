"""Which broker the demo takes, on machines with and without one."""

from pathlib import Path

import pytest

from messaging.cli import broker_node
from services.demo.brokers import EMBEDDED_URL, find_broker
from tests.support.programs import calls_of, write_program


@pytest.fixture
def bare_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine without RabbitMQ, Docker and apt-get; returns the folder that is its PATH."""
    programs = tmp_path / "bin"
    programs.mkdir()
    monkeypatch.setenv("PATH", str(programs))
    monkeypatch.setattr(broker_node, "_PACKAGE_FOLDERS", ())
    monkeypatch.chdir(tmp_path)
    return programs


def test_the_embedded_broker_comes_when_asked_for(tmp_path: Path) -> None:
    with find_broker(tmp_path, given_url="amqp://elsewhere/", embedded=True, report=pytest.fail) as found:
        assert found.is_embedded
        assert "as asked" in found.words


def test_a_given_address_wins_and_is_treated_as_shared(tmp_path: Path) -> None:
    with find_broker(tmp_path, given_url="amqp://elsewhere/", embedded=False, report=pytest.fail) as found:
        assert (found.url, found.is_shared, found.is_embedded) == ("amqp://elsewhere/", True, False)


def test_the_address_of_the_embedded_broker_means_that_one(tmp_path: Path) -> None:
    with find_broker(tmp_path, given_url=EMBEDDED_URL, embedded=False, report=pytest.fail) as found:
        assert found.is_embedded


def test_without_any_broker_the_embedded_one_is_used_and_said_plainly(tmp_path: Path, bare_machine: Path) -> None:
    told: list[str] = []

    with find_broker(tmp_path / "broker", given_url=None, embedded=False, report=told.append) as found:
        assert found.is_embedded
        assert "for want of RabbitMQ" in found.words

    (line,) = told
    assert line.startswith("No RabbitMQ here: ")
    assert "apt-get install rabbitmq-server" in line


def test_an_engine_that_cannot_start_rabbitmq_is_passed_over(tmp_path: Path, bare_machine: Path) -> None:
    (tmp_path / "docker-compose.yml").write_text("services: {}\n")
    write_program(bare_machine, "docker", body='case "$*" in *up*) echo "no image" >&2; exit 1 ;; esac')
    told: list[str] = []

    with find_broker(tmp_path / "broker", given_url=None, embedded=False, report=told.append) as found:
        assert found.is_embedded

    assert any(call.endswith("up -d rabbitmq") for call in calls_of(bare_machine, "docker"))
    assert any("no image" in line for line in told)
