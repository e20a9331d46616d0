import asyncio
import itertools
import math
from functools import partial

import pytest

from messaging.errors import ConfigurationError
from messaging.transports import deadlines as module
from messaging.transports.deadlines import SLOTS_PER_S, Deadline, Deadlines, finite_s


async def test_a_deadline_expires_once_and_never_early() -> None:
    loop, deadlines = asyncio.get_running_loop(), Deadlines()
    expired = loop.create_future()
    begun_s = loop.time()

    deadlines.set(0.03, lambda: expired.set_result(loop.time()))

    assert await expired - begun_s >= 0.03
    assert len(deadlines) == 0


async def test_one_that_is_lifted_does_not_expire() -> None:
    loop, deadlines = asyncio.get_running_loop(), Deadlines()
    done, expired = loop.create_future(), []
    lifted = deadlines.set(0.0, lambda: expired.append("lifted"))
    deadlines.set(0.02, lambda: done.set_result(None))

    lifted.lift()
    lifted.lift()
    await done

    assert not expired


async def test_they_expire_in_the_order_of_their_ends_whatever_the_order_of_their_beginnings() -> None:
    deadlines, expired, done = Deadlines(), list[str](), asyncio.Event()

    def last() -> None:
        expired.append("last")
        done.set()

    deadlines.set(0.06, last)
    deadlines.set(0.0, lambda: expired.append("first"))
    deadlines.set(0.03, lambda: expired.append("between"))
    await done.wait()

    assert expired == ["first", "between", "last"]


async def test_one_that_expires_may_lift_its_neighbour() -> None:
    deadlines, expired, done = Deadlines(), list[int](), asyncio.Event()
    pair: list[Deadline] = []

    def expire(one: int) -> None:
        expired.append(one)
        pair[1 - one].lift()

    pair += [deadlines.set(0.0, partial(expire, one)) for one in (0, 1)]
    deadlines.set(0.05, done.set)
    await done.wait()

    assert len(expired) == 1


async def test_what_was_lifted_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_SWEEP_MIN", 8)
    deadlines = Deadlines()
    deadlines._sweep_at = 8

    kept = deadlines.set(1_000.0, lambda: None)
    for number in range(1_000):
        deadlines.set(2_000.0 + number, lambda: None).lift()

    assert len(deadlines) == 1
    assert len(deadlines._slots) <= 2 * 8
    kept.lift()
    deadlines.clear()


async def test_only_the_earliest_has_a_timer(monkeypatch: pytest.MonkeyPatch) -> None:
    loop, deadlines = asyncio.get_running_loop(), Deadlines()
    armed: list[float] = []
    call_at = loop.call_at

    def counted(when: float, *arguments: object) -> asyncio.TimerHandle:
        armed.append(when)
        return call_at(when, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(loop, "call_at", counted)
    for seconds in itertools.repeat(60.0, 500):
        deadlines.set(seconds, lambda: None)

    assert len(armed) == 1
    assert len(deadlines) == 500
    deadlines.clear()
    assert len(deadlines) == 0


async def test_a_task_that_overruns_is_cut_short_with_a_timeout() -> None:
    deadlines = Deadlines()

    with pytest.raises(TimeoutError), deadlines.of_task(0.01) as deadline:
        await asyncio.Event().wait()

    assert deadline.is_over
    task = asyncio.current_task()
    assert task is not None
    assert not task.cancelling()


async def test_a_task_in_time_hears_nothing_of_its_deadline() -> None:
    deadlines = Deadlines()

    with deadlines.of_task(1 / SLOTS_PER_S) as deadline:
        await asyncio.sleep(0)
    await asyncio.sleep(3 / SLOTS_PER_S)

    assert not deadline.is_over


async def test_errors_of_the_task_pass() -> None:
    with pytest.raises(KeyError), Deadlines().of_task(1.0):
        raise KeyError("its own")


async def test_a_cancellation_from_elsewhere_stays_one() -> None:
    deadlines, entered = Deadlines(), asyncio.Event()

    async def wait() -> None:
        with deadlines.of_task(60.0):
            entered.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(wait())
    await entered.wait()
    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task
    assert len(deadlines) == 0


async def test_a_cancellation_that_comes_with_the_deadline_wins() -> None:
    deadlines, entered = Deadlines(), asyncio.Event()

    async def wait() -> None:
        with deadlines.of_task(60.0) as deadline:
            entered.set()
            try:
                await asyncio.Event().wait()
            finally:
                deadline.expire()

    task = asyncio.create_task(wait())
    await entered.wait()
    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task


async def test_what_swallows_the_cut_is_not_cancelled_afterwards() -> None:
    deadlines = Deadlines()

    async def stubborn() -> str:
        with deadlines.of_task(0.0):
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                return "done all the same"
        return "never"

    assert await stubborn() == "done all the same"
    await asyncio.sleep(0)


async def test_it_is_entered_by_a_task() -> None:
    loop = asyncio.get_running_loop()
    said: asyncio.Future[str] = loop.create_future()

    def enter() -> None:
        with pytest.raises(RuntimeError) as caught, Deadlines().of_task(1.0):
            pass
        said.set_result(str(caught.value))

    loop.call_soon(enter)

    assert "task" in await said


def test_a_wait_is_what_was_asked_for_or_else_the_default() -> None:
    assert finite_s(None, 10.0) == 10.0
    assert finite_s(0.0, 10.0) == 0.0
    assert finite_s(-1.0, 10.0) == -1.0


@pytest.mark.parametrize("endless", [math.inf, -math.inf, math.nan])
def test_a_wait_without_an_end_is_refused(endless: float) -> None:
    with pytest.raises(ConfigurationError, match="finite number of seconds"):
        finite_s(endless, 10.0)
