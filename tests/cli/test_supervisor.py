"""Worker processes, real ones: started, crashed, restarted, drained, killed, reloaded."""

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from messaging.cli.exits import Exit
from messaging.cli.supervisor import Supervisor, restart_delay_s, worker_command
from messaging.cli.watch import SourceWatch
from tests.support.guarded import guarded
from tests.support.waiting import LIMIT_S, eventually

# The supervisor in a process of its own: signals and exit codes are its whole interface.
SUPERVISE = """
import asyncio, sys
from pathlib import Path
from messaging.cli import supervisor
from messaging.cli.supervisor import Supervisor
from messaging.cli.watch import SourceWatch
async def main():
    folder = Path(sys.argv[1])
    commands = [[sys.executable, str(folder / "worker.py"), str(folder), str(n)] for n in range(int(sys.argv[2]))]
    watch = SourceWatch(folder) if "reload" in sys.argv else None
    if "patient" in sys.argv:
        supervisor.restart_delay_s = lambda crashes: 600.0
    return await Supervisor(commands, watch=watch).run()
sys.exit(asyncio.run(main()))
"""

# Writes one line per act, drains on SIGTERM, ends with its lifeline like `messaging run`.
WORKER = """
import os, signal, sys, threading, time
from pathlib import Path
folder, number = Path(sys.argv[1]), sys.argv[2]
def note(act):
    with (folder / "acts").open("a") as acts:
        acts.write(f"{act} {number} {os.getpid()}\\n")
def stop(*_):
    note("drained")
    sys.exit(0)
signal.signal(signal.SIGTERM, stop)
def wait(fd=int(sys.argv[4])):
    os.read(fd, 1)
    os.kill(os.getpid(), signal.SIGTERM)
threading.Thread(target=wait, daemon=True).start()
note("started")
"""
LIVE = WORKER + "while True: time.sleep(0.05)\n"


class Rig:
    """A supervisor, its folder, and what its workers noted."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, worker: str, *options: str, count: int = 1) -> None:
        (self.folder / "worker.py").write_text(textwrap.dedent(worker))
        arguments = [str(self.folder), str(count), *options]
        with (self.folder / "log").open("w") as log:
            self.process = subprocess.Popen(guarded(sys.executable, "-u", "-c", SUPERVISE, *arguments), stdout=log)

    @property
    def said(self) -> str:
        """What the supervisor logged."""
        return (self.folder / "log").read_text()

    def acts(self, act: str) -> list[int]:
        """Return the process ids that noted an act."""
        path = self.folder / "acts"
        lines = path.read_text().splitlines() if path.exists() else []
        return [int(line.split()[2]) for line in lines if line.startswith(act)]

    def signal(self, number: int) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def exit_code(self) -> int:
        assert self.process is not None
        return self.process.wait(timeout=LIMIT_S)


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    made = Rig(tmp_path)
    yield made
    if made.process is not None and made.process.poll() is None:
        made.process.kill()
        made.process.wait(timeout=LIMIT_S)


def until(holds: Callable[[], bool], *, timeout_s: float = LIMIT_S) -> None:
    deadline = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < deadline, "not in time"
        time.sleep(0.02)


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except FileNotFoundError:
        return False


class TestStopping:
    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    def test_one_signal_drains_every_worker_and_ends_with_0(self, rig: Rig, number: int) -> None:
        rig.start(LIVE, count=2)
        until(lambda: len(rig.acts("started")) == 2)

        rig.signal(number)

        assert rig.exit_code() == Exit.OK
        assert sorted(rig.acts("drained")) == sorted(rig.acts("started"))

    def test_a_second_signal_kills_and_ends_with_1(self, rig: Rig) -> None:
        stubborn = WORKER.replace("sys.exit(0)", "pass") + "while True: time.sleep(0.05)\n"
        rig.start(stubborn)
        until(lambda: len(rig.acts("started")) == 1)

        rig.signal(signal.SIGTERM)
        until(lambda: len(rig.acts("drained")) == 1)
        rig.signal(signal.SIGTERM)

        assert rig.exit_code() == Exit.FAILURE
        assert not is_alive(rig.acts("started")[0])

    def test_workers_drain_when_the_supervisor_is_killed(self, rig: Rig) -> None:
        rig.start(LIVE, count=2)
        until(lambda: len(rig.acts("started")) == 2)

        rig.signal(signal.SIGKILL)

        until(lambda: len(rig.acts("drained")) == 2)
        until(lambda: not any(is_alive(pid) for pid in rig.acts("started")))

    def test_an_unclean_end_of_a_worker_shows_in_the_exit_code(self, rig: Rig) -> None:
        rig.start(LIVE.replace("sys.exit(0)", "os._exit(7)"))
        until(lambda: len(rig.acts("started")) == 1)

        rig.signal(signal.SIGTERM)

        assert rig.exit_code() == Exit.FAILURE


class TestCrashes:
    def test_a_killed_worker_is_started_again_and_its_neighbour_left_alone(self, rig: Rig) -> None:
        rig.start(LIVE, count=2)
        until(lambda: len(rig.acts("started")) == 2)

        os.kill(rig.acts("started")[0], signal.SIGKILL)

        until(lambda: len(rig.acts("started")) == 3)
        assert rig.acts("drained") == []
        rig.signal(signal.SIGTERM)
        assert rig.exit_code() == Exit.OK

    def test_a_worker_that_cannot_be_configured_ends_all_with_its_code(self, rig: Rig) -> None:
        rig.start(WORKER + "if number == '1': sys.exit(2)\nwhile True: time.sleep(0.05)\n", count=2)

        assert rig.exit_code() == Exit.CONFIGURATION
        assert len(rig.acts("started")) <= 2

    def test_a_stop_during_the_back_off_ends_at_once(self, rig: Rig) -> None:
        rig.start(WORKER + "sys.exit(1)\n", "patient")
        until(lambda: rig.said.count("worker.crashed") == 1)

        rig.signal(signal.SIGTERM)

        assert rig.exit_code() == Exit.OK

    def test_the_back_off_doubles_up_to_half_a_minute(self) -> None:
        assert [restart_delay_s(crashes) for crashes in (1, 2, 3, 7, 1000)] == [0.5, 1.0, 2.0, 30.0, 30.0]


class TestReload:
    def test_a_changed_file_drains_and_restarts(self, rig: Rig) -> None:
        rig.start(LIVE, "reload")
        until(lambda: len(rig.acts("started")) == 1)

        (rig.folder / "other.py").touch()

        until(lambda: len(rig.acts("started")) == 2)
        assert rig.acts("drained") == rig.acts("started")[:1]
        rig.signal(signal.SIGTERM)
        assert rig.exit_code() == Exit.OK

    def test_a_broken_file_waits_for_the_next_edit(self, rig: Rig) -> None:
        rig.start(WORKER + "sys.exit(2)\n", "reload")
        until(lambda: len(rig.acts("started")) == 1)

        (rig.folder / "worker.py").write_text(LIVE)

        until(lambda: len(rig.acts("started")) == 2)
        rig.signal(signal.SIGTERM)
        assert rig.exit_code() == Exit.OK


class TestInThisProcess:
    """The same through its own interface: what the process as a whole cannot show."""

    async def test_a_signal_ends_it(self, tmp_path: Path) -> None:
        supervisor = Supervisor(commands(tmp_path, LIVE, count=2))
        async with asyncio.TaskGroup() as group:
            running = group.create_task(supervisor.run())
            await eventually(lambda: len(noted(tmp_path, "started")) == 2)

            os.kill(os.getpid(), signal.SIGTERM)

        assert running.result() == Exit.OK
        assert len(noted(tmp_path, "drained")) == 2

    async def test_a_second_signal_kills(self, tmp_path: Path) -> None:
        stubborn = WORKER.replace("sys.exit(0)", "pass") + "while True: time.sleep(0.05)\n"
        supervisor = Supervisor(commands(tmp_path, stubborn))
        async with asyncio.TaskGroup() as group:
            running = group.create_task(supervisor.run())
            await eventually(lambda: len(noted(tmp_path, "started")) == 1)

            os.kill(os.getpid(), signal.SIGINT)
            await eventually(lambda: len(noted(tmp_path, "drained")) == 1)
            os.kill(os.getpid(), signal.SIGINT)

        assert running.result() == Exit.FAILURE

    async def test_crashes_are_restarted_and_mistakes_are_not(self, tmp_path: Path) -> None:
        twice = WORKER + "sys.exit(1 if len((folder / 'acts').read_text().splitlines()) < 2 else 2)\n"

        code = await Supervisor(commands(tmp_path, twice)).run()

        assert code == Exit.CONFIGURATION
        assert len(noted(tmp_path, "started")) == 2

    async def test_a_change_restarts_all(self, tmp_path: Path) -> None:
        supervisor = Supervisor(commands(tmp_path, LIVE, count=2), watch=SourceWatch(tmp_path))
        async with asyncio.TaskGroup() as group:
            running = group.create_task(supervisor.run())
            await eventually(lambda: len(noted(tmp_path, "started")) == 2)

            (tmp_path / "other.py").touch()
            await eventually(lambda: len(noted(tmp_path, "started")) == 4)
            os.kill(os.getpid(), signal.SIGTERM)

        assert running.result() == Exit.OK

    def test_workers_run_the_same_program(self) -> None:
        assert worker_command(["run", "shop:shop"]) == [sys.executable, "-m", "messaging", "run", "shop:shop"]


def commands(folder: Path, worker: str, *, count: int = 1) -> list[list[str]]:
    (folder / "worker.py").write_text(worker)
    return [[sys.executable, str(folder / "worker.py"), str(folder), str(number)] for number in range(count)]


def noted(folder: Path, act: str) -> list[str]:
    path = folder / "acts"
    return [line for line in path.read_text().splitlines() if line.startswith(act)] if path.exists() else []
