"""Programs that tests start end with the tests, and none is started without that."""

import ast
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from messaging.cli.broker_probe import is_process
from tests.support.guarded import guarded
from tests.support.installation import ROOT, until

SLEEPER: Final = "import sys, time; print('up', flush=True); time.sleep(600)"
# Starts a sleeper, says its id once it is up, and waits to be killed.
PARENT: Final = """
import subprocess, sys, time
from tests.support.guarded import guarded
child = subprocess.Popen(guarded(sys.executable, "-c", sys.argv[1], "guarded-sleeper"), stdout=subprocess.PIPE)
child.stdout.readline()
print(child.pid, flush=True)
time.sleep(600)
"""
STARTS: Final = {"Popen", "create_subprocess_exec"}
# Each has a shell beside it that reads a pipe from the tests and ends it when the pipe closes.
WITH_A_PIPE: Final = {"tests/chaos/programs.py"}


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a program that its parent died")
def test_it_ends_with_a_killed_parent() -> None:
    with subprocess.Popen(
        guarded(sys.executable, "-c", PARENT, SLEEPER), env={"PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE
    ) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        was_running = is_process(pid, "guarded-sleeper")

        parent.kill()

    assert was_running
    until(lambda: not is_process(pid, "guarded-sleeper"), what="the sleeper ended with its parent")


def test_it_is_the_program_itself() -> None:
    done = subprocess.run(
        guarded("/bin/sh", "-c", 'echo "$0 $1 $EXTRA"; exit 7', "name", "two words"),
        env={"EXTRA": "from the environment"},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )

    assert (done.returncode, done.stdout, done.stderr) == (7, "name two words from the environment\n", "")


def test_a_signal_reaches_it() -> None:
    with subprocess.Popen(guarded("/bin/sh", "-c", "echo up; exec sleep 600"), stdout=subprocess.PIPE) as program:
        assert program.stdout is not None
        program.stdout.readline()
        program.send_signal(signal.SIGTERM)

    assert program.returncode == -signal.SIGTERM


def test_ctrl_c_reaches_it_where_the_tests_themselves_ignore_it() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        program = subprocess.Popen(guarded("/bin/sh", "-c", "echo up; exec sleep 600"), stdout=subprocess.PIPE)
    finally:
        signal.signal(signal.SIGINT, before)
    with program:
        assert program.stdout is not None
        program.stdout.readline()
        program.send_signal(signal.SIGINT)

    assert program.returncode == -signal.SIGINT


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a program that its parent died")
def test_it_does_not_begin_when_its_parent_has_died_already() -> None:
    command = guarded("/bin/sh", "-c", "echo began")
    command[4] = "1" if command[4] != "1" else "2"

    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)

    assert done.stdout == ""


def starts(path: Path) -> Iterator[str]:
    """Return where a file starts a program that may outlive it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.Call):
            continue
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        words = ast.unparse(node)
        # Who reads a pipe from the tests ends when it closes.
        if name in STARTS and "guarded(" not in words and "stdin=subprocess.PIPE" not in words:
            yield f"{path.relative_to(ROOT).as_posix()}:{node.lineno}"


def test_every_program_of_the_tests_has_a_guard() -> None:
    found = [start for path in sorted((ROOT / "tests").rglob("*.py")) for start in starts(path)]

    assert [start for start in found if start.partition(":")[0] not in WITH_A_PIPE] == []
