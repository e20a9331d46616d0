"""The private node: real RabbitMQ processes, started, found again, killed and stopped."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from messaging.cli import broker_node
from messaging.cli.broker_node import PrivateNode, find_server_folder, free_port
from messaging.errors import ConfigurationError
from tests.support.programs import write_program
from tests.support.waiting import LIMIT_S

START_DETACHED = """
import sys
from pathlib import Path
from messaging.cli import broker_node
from messaging.cli.broker_node import PrivateNode
node = PrivateNode(Path(sys.argv[1]), port=int(sys.argv[2]), name="twin")
if sys.argv[3] == "never ready":
    broker_node.speaks_amqp = lambda port: False
node.start(detached=sys.argv[3] != "attached")
print(node.pid, flush=True)
sys.stdin.read()
"""


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrivateNode]:
    private = PrivateNode(tmp_path_factory.mktemp("node"), port=free_port(), name="twin")
    private.start()
    yield private
    private.stop()


def listeners_of(pid: int) -> set[str]:
    """Return the local addresses on which a process listens, in the kernel's notation."""
    inodes = {str(fd.readlink()) for fd in Path(f"/proc/{pid}/fd").iterdir() if fd.is_symlink()}
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return {row[1].split(":")[0] for row in rows if row[3] == "0A" and f"socket:[{row[9]}]" in inodes}


def until(holds: Callable[[], bool], *, timeout_s: float = LIMIT_S) -> bool:
    deadline = time.monotonic() + timeout_s
    while not holds() and time.monotonic() < deadline:
        time.sleep(0.05)
    return holds()


class TestOneNode:
    pytestmark = pytest.mark.broker

    def test_it_answers_amqp_on_its_port(self, node: PrivateNode) -> None:
        assert node.is_ready
        assert node.url == f"amqp://guest:guest@127.0.0.1:{node.port}/"

    def test_ctl_speaks_to_it(self, node: PrivateNode) -> None:
        assert "guest" in node.ctl("list_users")

    def test_a_failing_ctl_command_says_why(self, node: PrivateNode) -> None:
        with pytest.raises(ConfigurationError, match="delete_vhost"):
            node.ctl("delete_vhost", "nowhere")

    def test_a_ctl_command_that_hangs_is_given_up(self, node: PrivateNode) -> None:
        with pytest.raises(ConfigurationError, match=r"list_users.* took longer than 0.01 s"):
            node.ctl("list_users", timeout_s=0.01)

    def test_it_hands_dead_letters_on_again_soon(self, node: PrivateNode) -> None:
        setting = node.ctl("eval", "application:get_env(rabbit, dead_letter_worker_publisher_confirm_timeout).")

        assert setting.strip() == "{ok,10000}"

    def test_it_listens_on_the_loopback_interface_only(self, node: PrivateNode) -> None:
        assert node.pid is not None
        assert listeners_of(node.pid) == {"0100007F"}

    def test_starting_it_twice_is_once(self, node: PrivateNode) -> None:
        pid = node.pid

        node.start()

        assert node.pid == pid

    def test_another_object_finds_it_by_its_folder(self, node: PrivateNode) -> None:
        found = PrivateNode.recorded(node.folder)

        assert found is not None
        assert (found.pid, found.url, found.name) == (node.pid, node.url, "twin")

    def test_a_second_node_of_the_same_name_runs_beside_it(self, node: PrivateNode, tmp_path: Path) -> None:
        second = PrivateNode(tmp_path / "with a space", port=free_port(), name="twin")

        second.start()

        try:
            assert second.pid != node.pid
            second.ctl("add_vhost", "only-here")
            assert "only-here" not in node.ctl("list_vhosts")
        finally:
            second.stop()
        assert node.is_ready

    def test_data_survive_a_kill_and_a_restart(self, node: PrivateNode) -> None:
        node.ctl("add_vhost", "kept")
        pid = node.pid

        node.kill()
        was_running = node.is_running
        node.start()

        assert not was_running
        assert node.pid != pid
        assert "kept" in node.ctl("list_vhosts")

    def test_it_starts_again_after_a_stranger_killed_it(self, node: PrivateNode) -> None:
        assert node.pid is not None
        os.kill(node.pid, signal.SIGKILL)
        assert until(lambda: not node.is_running)

        node.restart()

        assert node.is_ready

    def test_a_taken_port_is_named(self, node: PrivateNode, tmp_path: Path) -> None:
        intruder = PrivateNode(tmp_path, port=node.port, name="intruder")

        with pytest.raises(ConfigurationError, match=f"port {node.port} .* taken"):
            intruder.start()

        assert not intruder.is_running
        assert node.is_ready


@pytest.mark.broker
@pytest.mark.parametrize(("mode", "survives"), [("attached", False), ("detached", True)])
def test_it_ends_with_a_killed_parent_unless_detached(tmp_path: Path, mode: str, survives: bool) -> None:
    command = [sys.executable, "-c", START_DETACHED, str(tmp_path), str(free_port()), mode]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        parent.kill()
    found = PrivateNode.recorded(tmp_path)
    assert found is not None

    try:
        if survives:
            time.sleep(1.0)
            assert found.pid == pid
        else:
            assert until(lambda: not found.is_running)
    finally:
        found.stop()

    assert not found.is_running


@pytest.mark.broker
def test_a_node_that_cannot_start_shows_its_log_and_leaves_nothing(tmp_path: Path) -> None:
    node = PrivateNode(tmp_path, port=free_port(), name="broken")
    (tmp_path / "advanced.config").write_text("this is no Erlang term")

    with pytest.raises(ConfigurationError, match=r"ended while starting|not ready in time"):
        node.start(timeout_s=20.0)

    assert not node.is_running
    assert list(tmp_path.glob("*.pid")) == []


@pytest.mark.broker
def test_a_node_whose_parent_is_killed_while_it_starts_ends_too(tmp_path: Path) -> None:
    command = [sys.executable, "-c", START_DETACHED, str(tmp_path), str(free_port()), "never ready"]
    found: PrivateNode | None = None
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as parent:
        # Erlang writes its process id long before the broker is ready.
        assert until((tmp_path / "node.pid").exists)
        found = PrivateNode.recorded(tmp_path)
        parent.kill()

    assert found is not None
    assert until(lambda: not found.is_running)


@pytest.mark.broker
def test_a_port_mapper_that_cannot_start_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    write_program(programs, "epmd", body="echo no such luck; exit 1")
    write_program(programs, "erl")
    monkeypatch.setenv("PATH", str(programs))
    node = PrivateNode(tmp_path / "node", port=free_port(), name="mapless")

    with pytest.raises(ConfigurationError, match=r"(?s)port mapper did not start.*no such luck"):
        node.start()

    assert not node.is_running


def test_stopping_what_does_not_run_is_fine(tmp_path: Path) -> None:
    node = PrivateNode(tmp_path, port=free_port(), name="idle")

    node.stop()
    node.kill()

    assert not node.is_ready


def test_a_process_id_of_a_stranger_is_not_taken_for_the_node(tmp_path: Path) -> None:
    node = PrivateNode(tmp_path, port=free_port(), name="idle")
    (tmp_path / "node.pid").write_text(str(os.getpid()))

    node.kill()

    assert not node.is_running


def test_ctl_needs_a_running_node(tmp_path: Path) -> None:
    node = PrivateNode(tmp_path, port=free_port(), name="idle")

    with pytest.raises(ConfigurationError, match="does not run"):
        node.ctl("status")


@pytest.mark.parametrize("name", ["", "UPPER", "a@b", "a b", "a\n", "é"])
def test_a_bad_name_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigurationError, match="node name"):
        PrivateNode(tmp_path, port=5673, name=name)


def test_a_folder_without_a_node_has_none(tmp_path: Path) -> None:
    assert PrivateNode.recorded(tmp_path) is None


def test_a_free_port_can_be_bound() -> None:
    port = free_port()

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", port))


def test_a_machine_without_erlang_is_told_how_to_get_a_broker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")

    with pytest.raises(ConfigurationError, match=r"Erlang.*apt-get install rabbitmq-server"):
        find_server_folder()


def test_a_machine_without_rabbitmq_is_told_how_to_get_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    for program in ("erl", "epmd"):
        (programs / program).write_text("#!/bin/sh\n")
        (programs / program).chmod(0o755)
    monkeypatch.setenv("PATH", str(programs))
    monkeypatch.setattr(broker_node, "_PACKAGE_FOLDERS", ())

    with pytest.raises(ConfigurationError, match="rabbitmq-server is not installed"):
        find_server_folder()


def test_scripts_outside_packages_are_found_through_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for program in ("erl", "epmd", "rabbitmq-server"):
        (tmp_path / program).write_text("#!/bin/sh\n")
        (tmp_path / program).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(broker_node, "_PACKAGE_FOLDERS", ())

    assert find_server_folder() == tmp_path
