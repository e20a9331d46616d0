"""What the machine looks like to a private broker."""

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from messaging.cli import broker_probe
from messaging.cli.broker_probe import accepts, free_port, is_process, read_pid, require_free, speaks_amqp
from messaging.errors import ConfigurationError
from tests.support.guarded import guarded
from tests.support.programs import calls_of, write_program


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        yield server


def answer_once(server: socket.socket, reply: bytes) -> threading.Thread:
    def serve() -> None:
        link, _ = server.accept()
        with link:
            link.recv(8)
            link.sendall(reply)

    thread = threading.Thread(target=serve)
    thread.start()
    return thread


def test_a_free_port_can_be_bound() -> None:
    require_free(free_port())


def test_a_free_port_is_none_that_an_outgoing_connection_may_get() -> None:
    ranges = Path("/proc/sys/net/ipv4/ip_local_port_range")
    lowest = int(ranges.read_text().split()[0]) if ranges.exists() else 49_152

    assert {port for port in (free_port() for _ in range(50)) if not 1024 < port < max(lowest, 32_768)} == set()


def test_a_free_port_is_none_of_those_that_are_spoken_for(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = free_port()
    monkeypatch.setattr(broker_probe, "_PORTS", range(wanted, wanted + 1))

    assert free_port() == wanted
    with pytest.raises(ConfigurationError, match="are taken"):
        free_port(besides={wanted})


def test_where_every_port_is_taken_it_says_so(listener: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    taken = listener.getsockname()[1]
    monkeypatch.setattr(broker_probe, "_PORTS", range(taken, taken + 1))

    with pytest.raises(ConfigurationError, match=f"from {taken} to {taken} are taken"):
        free_port()


def test_a_port_somebody_listens_on_is_taken(listener: socket.socket) -> None:
    port = listener.getsockname()[1]

    assert accepts(port)
    with pytest.raises(ConfigurationError, match=f"port {port} of 127.0.0.1 is taken"):
        require_free(port)


def test_nobody_accepts_on_a_free_port() -> None:
    assert not accepts(free_port())
    assert not speaks_amqp(free_port())


@pytest.mark.parametrize(("reply", "speaks"), [(b"\x01\x00\x00", True), (b"HTTP/1.1 400", False), (b"", False)])
def test_only_a_method_frame_is_amqp(listener: socket.socket, reply: bytes, speaks: bool) -> None:
    thread = answer_once(listener, reply)

    answered = speaks_amqp(listener.getsockname()[1])

    thread.join(timeout=5.0)
    assert answered is speaks


def test_a_process_is_known_by_a_mark_in_its_command_line() -> None:
    command = [sys.executable, "-c", "print(flush=True); input()", "the-mark"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        running = is_process(child.pid, "the-mark")
        mistaken = is_process(child.pid, "another-mark")
        child.kill()

    assert running
    assert not mistaken


def test_a_process_that_ended_but_was_not_reaped_is_gone() -> None:
    child = subprocess.Popen(guarded(sys.executable, "-c", "", "the-mark"))
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)

    assert not is_process(child.pid, "the-mark")
    child.wait()


def test_where_the_kernel_shows_no_processes_ps_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_program(tmp_path, "ps", body="echo beam.smp -private_node the-mark")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(broker_probe, "_PROCESSES", tmp_path)

    running, mistaken = is_process(4711, "the-mark"), is_process(4711, "another-mark")

    assert running
    assert not mistaken
    assert calls_of(tmp_path, "ps")[0] == "-o command= -p 4711"


@pytest.mark.parametrize("content", ["", "not a number", "\n"])
def test_a_file_without_a_process_id_has_none(tmp_path: Path, content: str) -> None:
    (tmp_path / "pid").write_text(content)

    assert read_pid(tmp_path / "pid") is None
    assert read_pid(tmp_path / "missing") is None


def test_a_process_id_is_read_with_its_line_end(tmp_path: Path) -> None:
    (tmp_path / "pid").write_text("42\n")

    assert read_pid(tmp_path / "pid") == 42
