import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from benchmarks.programs import ProgramError, cpu_s_of, rss_mib_of, running
from tests.support.guarded import guarded

ROOT = Path(__file__).resolve().parents[2]
SLEEPS = "import time; time.sleep(60)"


async def test_a_report_is_found_among_other_words() -> None:
    chatter = """print("hello"); print('REPORT {"messages": 3}'); print("bye")"""

    async with running([sys.executable, "-c", chatter], title="chatter") as program:
        report = await program.report(timeout_s=30.0)
        await program.ended()

    assert report == {"messages": 3}


async def test_a_failure_carries_the_last_words() -> None:
    broken = "import sys; sys.exit('no such broker')"

    async with running([sys.executable, "-c", broken], title="broken") as program:
        with pytest.raises(ProgramError, match="broken ended with 1: no such broker"):
            await program.report(timeout_s=30.0)


async def test_silence_is_not_waited_out() -> None:
    async with running([sys.executable, "-c", SLEEPS], title="mute") as program:
        with pytest.raises(ProgramError, match=r"mute took longer than 0\.1 s"):
            await program.report(timeout_s=0.1)


async def test_what_a_program_started_goes_with_it() -> None:
    parent = (
        f"import subprocess, sys; child = subprocess.Popen([sys.executable, '-c', {SLEEPS!r}]); "
        "print('CHILD', child.pid, flush=True); child.wait()"
    )

    async with running([sys.executable, "-c", parent], title="parent") as program:
        child = psutil.Process(int(await program.said("CHILD", timeout_s=30.0)))
        used_s, held_mib = cpu_s_of(program.pid), rss_mib_of(program.pid)
    gone, alive = psutil.wait_procs([child], timeout=10)

    assert used_s > 0
    assert held_mib > 5.0
    # Without a parent to collect it, it may stay as an empty entry until the system does.
    assert gone or all(one.status() == psutil.STATUS_ZOMBIE for one in alive)


def test_a_benchmark_that_is_told_to_end_ends_what_it_started() -> None:
    program = f"""
import asyncio, sys
from benchmarks.programs import run_benchmark, running

async def work():
    async with running([sys.executable, "-c", {SLEEPS!r}], title="sleeper") as program:
        print(program.pid, flush=True)
        await asyncio.sleep(60)

run_benchmark(work())
"""
    with subprocess.Popen(
        guarded(sys.executable, "-c", program), cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as benchmark:
        assert benchmark.stdout is not None
        sleeper = psutil.Process(int(benchmark.stdout.readline()))
        benchmark.terminate()
        code = benchmark.wait(timeout=30)

    assert code == 128 + signal.SIGTERM
    assert not sleeper.is_running()
