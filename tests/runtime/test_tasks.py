import asyncio
from contextlib import suppress

from messaging.runtime.tasks import Tasks
from tests.support.logs import Logs


async def test_tasks_are_counted_until_they_end() -> None:
    tasks, gate = Tasks(), asyncio.Event()

    async def wait() -> None:
        await gate.wait()

    tasks.spawn(wait(), name="one")
    tasks.spawn(wait(), name="two")
    assert len(tasks) == 2

    gate.set()
    assert await tasks.drain(timeout_s=1.0)
    assert len(tasks) == 0


async def test_draining_nothing_is_done_at_once() -> None:
    assert await Tasks().drain(timeout_s=0.0)


async def test_a_drain_tells_that_it_ran_out_of_time_and_cancels_nothing() -> None:
    tasks, gate = Tasks(), asyncio.Event()
    ended = []

    async def wait() -> None:
        await gate.wait()
        ended.append(True)

    tasks.spawn(wait(), name="slow")
    assert not await tasks.drain(timeout_s=0.01)
    gate.set()
    assert await tasks.drain(timeout_s=1.0)
    assert ended == [True]


async def test_cancelling_waits_for_the_tasks_last_words() -> None:
    tasks = Tasks()
    words = []

    async def wait() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            words.append("goodbye")

    tasks.spawn(wait(), name="one")
    await asyncio.sleep(0)
    await tasks.cancel()

    assert words == ["goodbye"]
    assert len(tasks) == 0


async def test_a_task_that_does_not_let_itself_be_cancelled_is_left_behind_and_named(logs: Logs) -> None:
    tasks, gate = Tasks(), asyncio.Event()

    async def refuse() -> None:
        while not gate.is_set():
            with suppress(asyncio.CancelledError):
                await gate.wait()

    tasks.spawn(refuse(), name="messaging.orders.commands 0f3a")
    await asyncio.sleep(0)
    await tasks.cancel(timeout_s=0.01)

    [entry] = logs.of("task.abandoned")
    assert (entry["owners"], entry["count"]) == (["messaging.orders.commands"], 1)
    gate.set()
    assert await tasks.drain(timeout_s=1.0)


async def test_cancelling_nothing_is_fine() -> None:
    await Tasks().cancel()


async def test_a_failure_is_reported_to_the_event_loop() -> None:
    tasks = Tasks()
    reported: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context))

    async def fail() -> None:
        raise RuntimeError("a defect")

    tasks.spawn(fail(), name="broken")
    await tasks.drain(timeout_s=1.0)
    await asyncio.sleep(0)

    [context] = reported
    assert context["message"] == "task broken failed"
    assert str(context["exception"]) == "a defect"
