import asyncio

import pytest

from messaging.transports.amqp.tasks import asked, end


class TestAsked:
    async def test_answer_passes_through(self) -> None:
        assert await asked(asyncio.sleep(0, 5)) == 5

    async def test_cancellation_by_the_client_library_is_a_lost_channel(self) -> None:
        future = asyncio.get_running_loop().create_future()
        future.set_exception(asyncio.CancelledError())

        with pytest.raises(ConnectionResetError):
            await asked(future)

    async def test_own_cancellation_stays_one(self) -> None:
        task = asyncio.create_task(asked(asyncio.Event().wait()))
        await asyncio.sleep(0)

        task.cancel()

        with pytest.raises(asyncio.CancelledError):
            await task

    async def test_own_cancellation_that_the_client_library_swallowed_is_not_lost(self) -> None:
        async def swallow() -> None:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError as error:
                raise ValueError("the channel is closed") from error

        task = asyncio.create_task(asked(swallow()))
        await asyncio.sleep(0)

        task.cancel()

        with pytest.raises(asyncio.CancelledError):
            await task

    async def test_cleaning_up_after_a_cancellation_may_ask_again(self) -> None:
        answers: list[int] = []

        async def work() -> None:
            try:
                await asked(asyncio.Event().wait())
            finally:
                answers.append(await asked(asyncio.sleep(0, 5)))

        task = asyncio.create_task(work())
        await asyncio.sleep(0)

        task.cancel()

        with pytest.raises(asyncio.CancelledError):
            await task
        assert answers == [5]

    async def test_error_passes_through(self) -> None:
        async def fail() -> None:
            raise ValueError("no")

        with pytest.raises(ValueError, match="no"):
            await asked(fail())


class TestEnd:
    async def test_ends_tasks_and_keeps_their_errors_quiet(self) -> None:
        async def fail() -> None:
            try:
                await asyncio.Event().wait()
            finally:
                raise ValueError("while ending")

        tasks = [asyncio.create_task(fail()), asyncio.create_task(asyncio.sleep(3600))]
        await asyncio.sleep(0)

        await end(tasks)

        assert all(task.done() for task in tasks)

    async def test_nothing_to_end_is_fine(self) -> None:
        await end([])
