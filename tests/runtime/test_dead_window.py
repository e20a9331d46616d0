"""A few acts at a time; none is cut off half-way."""

import asyncio

import pytest

from messaging.runtime.dead_window import Window
from tests.support.waiting import eventually


class Acts:
    """Acts that end when they are told."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.running = 0
        self.most = 0
        self.ended = 0

    async def __call__(self) -> None:
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            await self.gate.wait()
            self.ended += 1
        finally:
            self.running -= 1


async def test_no_more_run_than_fit() -> None:
    acts, window = Acts(), Window(size=3)

    async def begin() -> None:
        for _ in range(7):
            await window.begin(acts)

    beginning = asyncio.create_task(begin())
    await eventually(lambda: acts.running == 3)
    assert not beginning.done()

    acts.gate.set()
    await beginning
    await window.drain(5.0)
    assert (acts.most, acts.ended) == (3, 7)


async def test_whoever_is_interrupted_waits_for_what_has_begun() -> None:
    acts = Acts()

    async def passing() -> None:
        async with Window.opened(rate_per_s=None, patience_s=5.0) as window:
            await window.begin(acts)
            await asyncio.Event().wait()

    task = asyncio.create_task(passing())
    await eventually(lambda: acts.running == 1)
    task.cancel()
    await asyncio.sleep(0)
    assert not task.done()

    acts.gate.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert acts.ended == 1


async def test_a_second_interruption_cuts_them_off() -> None:
    acts = Acts()

    async def passing() -> None:
        async with Window.opened(rate_per_s=None, patience_s=60.0) as window:
            await window.begin(acts)
            await asyncio.Event().wait()

    task = asyncio.create_task(passing())
    await eventually(lambda: acts.running == 1)
    task.cancel()
    await asyncio.sleep(0)
    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task
    assert (acts.ended, acts.running) == (0, 0)


async def test_what_does_not_end_is_waited_for_no_longer_than_promised() -> None:
    acts = Acts()

    async with Window.opened(rate_per_s=None, patience_s=0.01) as window:
        await window.begin(acts)
        await eventually(lambda: acts.running == 1)

    assert (acts.ended, acts.running) == (0, 0)


async def test_a_rate_spreads_the_beginnings() -> None:
    begun: list[float] = []
    loop = asyncio.get_running_loop()

    async def act() -> None:
        begun.append(loop.time())

    async with Window.opened(rate_per_s=100.0, patience_s=5.0) as window:
        for _ in range(4):
            await window.begin(act)

    assert begun[3] - begun[0] >= 0.029


async def test_a_place_is_free_again_when_its_turn_is_interrupted() -> None:
    acts, window = Acts(), Window(size=1, rate_per_s=0.01)
    acts.gate.set()
    await window.begin(acts)
    await window.drain(5.0)
    waiting = asyncio.create_task(window.begin(acts))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.wait([waiting])

    assert window._room._value == 1
