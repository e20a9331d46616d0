"""One task for what arrives together, and nobody notices but the clock."""

import asyncio
from collections.abc import Awaitable, Callable
from contextvars import ContextVar

import pytest

from messaging.runtime.runs import RUN_MAX, Runs

TENANT: ContextVar[object] = ContextVar("tenant", default=None)
TIMEOUT_S = 60.0


def runs_of(handle: Callable[[int], Awaitable[None]], left: list[int] | None = None) -> Runs[int]:
    async def handled(number: int) -> None:
        await handle(number)

    kept: list[int] = [] if left is None else left
    return Runs(handled, name="queue", leave=kept.append)


async def drained(runs: Runs[int], *numbers: int) -> None:
    for number in numbers:
        runs.put(number)
    assert await runs.drain(timeout_s=TIMEOUT_S)
    assert len(runs) == 0


def task_now() -> asyncio.Task[None]:
    task = asyncio.current_task()
    assert task is not None
    return task


async def test_what_arrives_together_and_waits_for_nothing_shares_a_task() -> None:
    tasks: list[asyncio.Task[None]] = []

    async def handle(number: int) -> None:
        tasks.append(task_now())

    await drained(runs_of(handle), *range(10))

    assert len(tasks) == 10
    assert len(set(tasks)) == 1
    assert tasks[0].get_name() == "queue"


async def test_what_arrives_later_has_another_task() -> None:
    tasks: list[asyncio.Task[None]] = []

    async def handle(number: int) -> None:
        tasks.append(task_now())

    runs = runs_of(handle)
    await drained(runs, 1)
    await drained(runs, 2)

    assert len(set(tasks)) == 2


async def test_what_waits_holds_up_nobody_and_shares_its_task_with_nobody_after_it() -> None:
    tasks: dict[int, asyncio.Task[None]] = {}
    ended: list[int] = []
    gate = asyncio.Event()

    async def handle(number: int) -> None:
        tasks[number] = task_now()
        if number == 3:
            await gate.wait()
        ended.append(number)

    runs = runs_of(handle)
    for number in range(6):
        runs.put(number)
    for _ in range(5):
        await asyncio.sleep(0)
    assert ended == [0, 1, 2, 4, 5]
    assert len(runs) == 1
    runs.put(6)
    gate.set()
    await drained(runs)

    assert sorted(ended) == list(range(7))
    assert tasks[3] is tasks[0]
    assert tasks[3] not in {tasks[4], tasks[5], tasks[6]}


async def test_what_waits_begins_in_the_order_of_its_arrival() -> None:
    begun: list[int] = []

    async def handle(number: int) -> None:
        begun.append(number)
        await asyncio.sleep(0)

    await drained(runs_of(handle), *range(50))

    assert begun == list(range(50))


async def test_what_always_waits_begins_in_one_turn_from_the_first_on_and_again_after_what_did_not() -> None:
    turns: list[list[int]] = []
    is_over, waits = False, True

    async def handle(number: int) -> None:
        turns[-1].append(number)
        if waits:
            await asyncio.sleep(0)

    def turn() -> None:
        if not is_over:
            turns.append([])
            asyncio.get_running_loop().call_soon(turn)

    runs = runs_of(handle)
    turn()
    await drained(runs, *range(100))
    waits = False
    await drained(runs, *range(100, 110))
    waits = True
    for start in (200, 300, 400):
        await drained(runs, *range(start, start + 100))
    is_over = True

    assert list(range(100)) in turns
    assert list(range(200, 300)) not in turns
    assert list(range(400, 500)) in turns


async def test_a_changed_variable_is_not_seen_by_the_next() -> None:
    seen: list[object] = []

    async def handle(number: int) -> None:
        seen.append(TENANT.get())
        TENANT.set(number)

    await drained(runs_of(handle), *range(5))

    assert seen == [None] * 5


async def test_a_variable_that_holds_an_equal_object_is_changed_too() -> None:
    outside: list[str] = []
    seen: list[object] = []

    async def handle(number: int) -> None:
        seen.append(TENANT.get())
        TENANT.set([])

    token = TENANT.set(outside)
    runs = runs_of(handle)
    TENANT.reset(token)
    await drained(runs, *range(3))

    assert all(one is outside for one in seen)


async def test_a_variable_that_was_put_back_is_unchanged() -> None:
    tasks: set[asyncio.Task[None]] = set()

    async def handle(number: int) -> None:
        tasks.add(task_now())
        TENANT.reset(TENANT.set(number))

    token = TENANT.set("shop")
    runs = runs_of(handle)
    await drained(runs, *range(5))
    TENANT.reset(token)

    assert len(tasks) == 1


async def test_what_a_handler_puts_begins_without_the_variables_of_that_handler() -> None:
    seen: list[object] = []

    async def handle(number: int) -> None:
        seen.append(TENANT.get())
        TENANT.set("a tenant")
        if number < 3:
            runs.put(number + 1)

    runs = runs_of(handle)
    await drained(runs, 0)

    assert seen == [None] * 4


async def test_a_timeout_cuts_only_the_one_that_set_it() -> None:
    ended: list[int] = []
    late: list[int] = []

    async def handle(number: int) -> None:
        if number == 2:
            try:
                async with asyncio.timeout(0):
                    await asyncio.Event().wait()
            except TimeoutError:
                late.append(number)
        ended.append(number)

    await drained(runs_of(handle), *range(5))

    assert late == [2]
    assert sorted(ended) == list(range(5))


async def test_a_group_of_tasks_that_fails_cancels_only_the_one_that_opened_it() -> None:
    ended: list[int] = []

    async def fail() -> None:
        raise ValueError("a child")

    async def fail_in_a_group() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(fail())
            await asyncio.Event().wait()

    async def handle(number: int) -> None:
        if number == 2:
            with pytest.raises(ExceptionGroup):
                await fail_in_a_group()
        ended.append(number)

    await drained(runs_of(handle), *range(5))

    assert sorted(ended) == list(range(5))


@pytest.mark.parametrize("is_taken_back", [False, True])
async def test_whoever_cancels_its_own_task_harms_nobody_after_it(is_taken_back: bool) -> None:
    tasks: list[asyncio.Task[None]] = []
    ended: list[int] = []

    async def handle(number: int) -> None:
        tasks.append(task_now())
        if number == 1:
            task_now().cancel()
            if is_taken_back:
                task_now().uncancel()
            return
        await asyncio.sleep(0)
        ended.append(number)

    await drained(runs_of(handle), 0)
    await drained(runs_of(handle), 1, 2, 3)

    assert ended == [0, 2, 3]
    assert tasks[2] is not tasks[1]


async def test_a_failure_is_reported_and_the_others_are_handled() -> None:
    reported: list[str] = []
    ended: list[int] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(str(context["exception"])))

    async def handle(number: int) -> None:
        if number in {1, 3}:
            raise RuntimeError(f"a defect in {number}")
        ended.append(number)

    await drained(runs_of(handle), *range(5))
    await asyncio.sleep(0)

    assert sorted(ended) == [0, 2, 4]
    assert sorted(reported) == ["a defect in 1", "a defect in 3"]


async def test_a_long_run_lets_the_event_loop_turn() -> None:
    handled: list[int] = []
    handled_by_then: list[int] = []

    async def handle(number: int) -> None:
        if not handled:
            asyncio.get_running_loop().call_soon(lambda: handled_by_then.append(len(handled)))
        handled.append(number)

    runs = runs_of(handle)
    await drained(runs, -2, -1)
    handled.clear()
    handled_by_then.clear()
    await drained(runs, *range(3 * RUN_MAX))

    assert handled_by_then == [RUN_MAX]
    assert handled == list(range(3 * RUN_MAX))


async def test_a_drain_tells_that_it_ran_out_of_time_and_cancels_nothing() -> None:
    gate = asyncio.Event()
    ended: list[int] = []

    async def handle(number: int) -> None:
        await gate.wait()
        ended.append(number)

    runs = runs_of(handle)
    for number in range(5):
        runs.put(number)
    assert not await runs.drain(timeout_s=0.0)
    gate.set()
    await drained(runs)

    assert sorted(ended) == list(range(5))


async def test_draining_nothing_is_done_at_once() -> None:
    async def handle(number: int) -> None:
        raise AssertionError("nothing was put")

    assert await runs_of(handle).drain(timeout_s=0.0)


async def test_what_had_not_begun_is_left_and_what_runs_is_cancelled() -> None:
    left: list[int] = []
    cut: list[int] = []

    async def handle(number: int) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cut.append(number)
            raise

    runs = runs_of(handle, left)
    runs.put(0)
    await asyncio.sleep(0)
    runs.put(1)
    runs.put(2)
    assert len(runs) == 3
    await runs.cancel()

    assert (cut, left) == ([0], [1, 2])
    assert len(runs) == 0


async def test_cancelling_nothing_is_fine() -> None:
    async def handle(number: int) -> None:
        raise AssertionError("nothing was put")

    await runs_of(handle).cancel()
