"""`run` as an operating system meets it: signals, exit codes, processes, logs. Real programs on a real broker."""

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from uuid import uuid4

import pytest

from messaging.cli import run
from messaging.cli.broker_probe import free_port
from tests.support.installation import Installation, ask, until
from tests.support.terminal import Terminal
from tests.support.waiting import LIMIT_S

Start = Callable[..., "Program"]


class Program:
    """A running `messaging run`, and what it wrote."""

    def __init__(self, installation: Installation, arguments: tuple[str, ...], changes: dict[str, str]) -> None:
        self.log = installation.folder / f"log-{uuid4().hex}"
        with self.log.open("w") as stream:
            self.process = installation.spawn("run", *arguments, changes=changes, stdout=stream, stderr=stream)

    @property
    def said(self) -> str:
        return self.log.read_text()

    def events(self, name: str) -> list[dict[str, object]]:
        """Return the log lines of one event; they are JSON, because the output is no terminal."""
        lines = (json.loads(line) for line in self.said.splitlines() if line.startswith("{") and line.endswith("}"))
        return [line for line in lines if line["event"] == name]

    def wait_for(self, name: str, *, count: int = 1) -> None:
        until(lambda: len(self.events(name)) >= count or self.process.poll() is not None, what=f"{name}: {self.said}")
        assert len(self.events(name)) >= count, self.said

    def stop(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(timeout=LIMIT_S)


@pytest.fixture
def start(quiet: Installation) -> Iterator[Start]:
    made: list[Program] = []

    def begin(*arguments: str, changes: dict[str, str] | None = None) -> Program:
        made.append(Program(quiet, arguments, changes or {}))
        return made[-1]

    yield begin
    for program in made:
        if program.process.poll() is None:
            program.process.kill()
            program.process.wait(timeout=LIMIT_S)


class TestMistakes:
    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            (("nowhere:shop",), "no module 'nowhere'"),
            (("shop:nothing",), "services there: shop:shop"),
            (("shop:shop", "--workers", "2", "--health-port", "65535"), "leaves no ports"),
        ],
    )
    @pytest.mark.parametrize("workers", ["1", "2"])
    def test_they_are_one_line_and_exit_code_2(
        self, offline: Installation, arguments: tuple[str, ...], words: str, workers: str
    ) -> None:
        result = offline.run("run", "--workers", workers, *arguments)

        assert result.returncode == 2
        assert words in result.stderr
        assert result.stderr.count("\n") == 1

    @pytest.mark.parametrize("arguments", [(), ("--health-port", str(free_port())), ("--workers", "2")])
    def test_a_missing_bundle_is_exit_code_2_however_it_is_run(
        self, offline: Installation, arguments: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # Loggers configured for a process keep their stream for good, and this process has other tests to run.
        monkeypatch.setattr(run, "configure_logs", lambda *_, **__: None)
        (offline.keys / "trust.bundle").unlink()
        for name, value in offline.environment.items():
            monkeypatch.setenv(name, value)

        result = offline.call("run", "shop:shop", *arguments)

        assert result.exit_code == 2

    def test_workers_that_cannot_start_end_the_program_with_their_code(self, offline: Installation) -> None:
        (offline.keys / "trust.bundle").unlink()

        result = offline.run("run", "shop:shop", "--workers", "2")

        assert result.returncode == 2
        assert "error: no trust bundle at" in result.stderr
        assert "Traceback" not in result.stderr


@pytest.mark.broker
class TestOneProcess:
    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    def test_a_signal_drains_it(self, start: Start, number: int) -> None:
        program = start("shop:shop")
        program.wait_for("service.started")

        assert program.stop(number) == 0
        assert len(program.events("service.stopped")) == 1

    def test_its_health_is_served_and_asked_for(self, start: Start, quiet: Installation) -> None:
        port = free_port()
        program = start("shop:shop", "--health-port", str(port))
        program.wait_for("service.started")

        until(lambda: ask(port, "/healthz").get("live"), what="it lives")
        until(lambda: quiet.call("health", "--port", str(port)).exit_code == 0, what="it is ready")
        assert program.stop() == 0
        assert quiet.call("health", "--port", str(port)).exit_code == 1

    def test_without_a_broker_it_waits_alive_but_not_ready_and_can_be_stopped(
        self, start: Start, quiet: Installation
    ) -> None:
        port = free_port()
        nowhere = {"MESSAGING_BROKER_URL": f"amqp://guest:guest@127.0.0.1:{free_port()}/"}
        program = start("shop:shop", "--health-port", str(port), changes=nowhere)
        until(lambda: ask(port).get("live"), what="the health port")

        assert ask(port).get("ready") is False
        assert program.stop() == 0

    def test_a_taken_health_port_is_one_line(self, quiet: Installation, start: Start) -> None:
        port = free_port()
        start("shop:shop", "--health-port", str(port)).wait_for("service.started")

        result = quiet.run("run", "shop:shop", "--health-port", str(port))

        assert result.returncode == 2
        assert f"error: the health port {port} cannot be had" in result.stderr

    def test_at_a_terminal_lines_are_for_people_and_ctrl_c_drains(self, quiet: Installation) -> None:
        terminal = Terminal(quiet, "run", "shop:shop")
        terminal.wait_for("service.started")

        terminal.process.send_signal(signal.SIGINT)

        assert terminal.end() == 0
        assert "\x1b[" in terminal.said
        assert not terminal.said.startswith("{")


@pytest.mark.broker
class TestWorkers:
    def test_they_share_the_work_have_a_port_each_and_drain_together(self, start: Start) -> None:
        port = free_port()
        program = start("shop:shop", "--workers", "2", "--health-port", str(port))
        program.wait_for("service.started", count=2)

        until(lambda: ask(port).get("ready") and ask(port + 1).get("ready"), what="both are ready")
        assert {line["worker"] for line in program.events("service.started")} == {0, 1}
        assert program.stop() == 0
        assert len(program.events("service.stopped")) == 2

    def test_a_killed_one_comes_back(self, start: Start) -> None:
        program = start("shop:shop", "--workers", "2")
        program.wait_for("service.started", count=2)

        os.kill(int(str(program.events("worker.started")[0]["pid"])), signal.SIGKILL)

        program.wait_for("service.started", count=3)
        assert program.events("worker.crashed")[0]["exit_code"] == -signal.SIGKILL
        assert program.stop() == 0

    def test_they_drain_when_their_parent_is_killed(self, start: Start) -> None:
        program = start("shop:shop", "--workers", "2")
        program.wait_for("service.started", count=2)

        program.process.kill()
        program.process.wait(timeout=LIMIT_S)

        until(lambda: len(program.events("service.stopped")) == 2, what=f"both drained: {program.said}")

    def test_an_edit_restarts_them(self, start: Start, quiet: Installation) -> None:
        program = start("shop:shop", "--reload")
        program.wait_for("service.started")

        # A file system may keep times in whole milliseconds.
        time.sleep(0.01)
        source = quiet.folder / "shop.py"
        source.write_text(source.read_text() + "\nprint('edited')\n")

        program.wait_for("service.started", count=2)
        assert "edited" in program.said
        assert program.stop() == 0
