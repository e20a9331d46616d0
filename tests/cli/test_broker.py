"""`messaging broker`: the whole life of a private node through the commands, and the choice between the two kinds."""

import json
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from messaging.cli.broker import app
from messaging.cli.broker_compose import ComposeBroker
from messaging.cli.broker_node import PrivateNode, free_port
from messaging.errors import ConfigurationError
from tests.support.programs import write_program


class FakeCompose(ComposeBroker):
    """A Compose broker without an engine."""

    def __init__(self) -> None:
        super().__init__(Path("docker-compose.yml"), command=("docker", "compose"))
        self.running = False

    @property
    def is_ready(self) -> bool:
        return self.running

    def start(self, timeout_s: float = 120.0) -> None:
        self.running = True

    def stop(self) -> None:
        self.running = False


@pytest.fixture
def runner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CliRunner:
    monkeypatch.chdir(tmp_path)
    return CliRunner()


@pytest.fixture
def compose(monkeypatch: pytest.MonkeyPatch) -> FakeCompose:
    fake = FakeCompose()
    monkeypatch.setattr(ComposeBroker, "found", lambda folder: fake)
    return fake


@pytest.mark.broker
def test_a_private_node_goes_up_is_seen_and_goes_down(runner: CliRunner, tmp_path: Path) -> None:
    port = free_port()
    node = PrivateNode(tmp_path / ".broker", port=port, name="development")
    try:
        started = runner.invoke(app, ["up", "--no-docker", "--port", str(port)])
        again = runner.invoke(app, ["up"])
        status = runner.invoke(app, ["status", "--json"])
        words = runner.invoke(app, ["status"])
        stopped = runner.invoke(app, ["down"])
    finally:
        node.stop()
    after = runner.invoke(app, ["status"])

    url = f"amqp://guest:guest@127.0.0.1:{port}/"
    assert f"MESSAGING_BROKER_URL={url}" in started.output
    assert started.output.endswith("stop it with: messaging broker down\n")
    assert again.output == started.output
    seen = json.loads(status.output)
    assert (seen["running"], seen["url"], seen["kind"]) == (True, url, "private node")
    assert url in words.output
    assert "Stopped the private node" in stopped.output
    assert after.exit_code == 1
    assert not node.is_running


@pytest.mark.broker
def test_a_private_node_elsewhere_is_stopped_as_up_said(runner: CliRunner, tmp_path: Path) -> None:
    folder = tmp_path / "of mine"
    node = PrivateNode(folder, port=free_port(), name="development")
    try:
        node.start(detached=True)
        started = runner.invoke(app, ["up", "--folder", str(folder)])
        _, _, said = started.output.strip().rpartition("messaging broker ")
        stopped = runner.invoke(app, shlex.split(said))
    finally:
        node.stop()

    assert f"Stopped the private node in {folder}" in stopped.output
    assert not node.is_running


def test_compose_goes_first_where_an_engine_answers(runner: CliRunner, compose: FakeCompose) -> None:
    started = runner.invoke(app, ["up"])
    status = runner.invoke(app, ["status", "--json"])
    stopped = runner.invoke(app, ["down"])

    assert compose.url in started.output
    assert json.loads(status.output) == {"running": True, "url": compose.url, "kind": "compose", "pid": None}
    assert "Stopped the service rabbitmq" in stopped.output
    assert not compose.running


def test_down_without_a_broker_says_so(runner: CliRunner) -> None:
    result = runner.invoke(app, ["down"])

    assert (result.exit_code, result.output) == (0, "No broker of ours runs here.\n")


def test_status_without_a_broker_fails_and_says_what_to_do(runner: CliRunner) -> None:
    result = runner.invoke(app, ["status"])

    assert result.exit_code == 1
    assert "messaging broker up" in result.output


def test_up_without_rabbitmq_names_the_remedy(
    runner: CliRunner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_program(tmp_path, "true")
    monkeypatch.setenv("PATH", str(tmp_path))

    result = runner.invoke(app, ["up", "--no-install"])

    assert isinstance(result.exception, ConfigurationError)
    assert "apt-get install rabbitmq-server" in str(result.exception)
