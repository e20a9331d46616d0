import asyncio
from collections.abc import Iterable

import pytest

from messaging.core.sealed import Label, Route
from messaging.errors import PublishNotConfirmedError, UnroutableError
from messaging.transports.amqp.confirms import WINDOW, WINDOW_BYTES, Confirms
from messaging.transports.amqp.outcomes import refused
from messaging.transports.amqp.parcel import Parcel
from messaging.transports.amqp.wire import BrokenFrameError
from tests.support.waiting import LIMIT_S


def parcel(message_id: str = "id", size: int = 1) -> Parcel:
    return Parcel(
        body=bytes(size),
        route=Route(exchange="ex", routing_key="key"),
        label=Label(message_id=message_id, type="t"),
        message_id=message_id,
    )


def added(confirms: Confirms, one: Parcel) -> asyncio.Future[None]:
    confirm: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    confirms.add(one, confirm)
    return confirm


def numbered(confirms: Confirms, numbers: Iterable[int]) -> dict[int, asyncio.Future[None]]:
    return {number: added(confirms, parcel(str(number))) for number in numbers}


def done(opened: dict[int, asyncio.Future[None]]) -> set[int]:
    return {number for number, confirm in opened.items() if confirm.done()}


async def test_tags_count_from_one_in_the_order_of_publishing() -> None:
    confirms = Confirms()
    opened = numbered(confirms, range(1, 6))

    confirms.settle(3, multiple=False, error_of=None)
    assert done(opened) == {3}
    confirms.settle(4, multiple=True, error_of=None)
    assert done(opened) == {1, 2, 3, 4}

    assert len(confirms) == 1


async def test_confirms_in_any_order_reach_their_own() -> None:
    confirms = Confirms()
    opened: dict[int, asyncio.Future[None]] = {}

    for start in range(1, 3000, 100):
        opened |= numbered(confirms, range(start, start + 100))
        # Every tag once, far from its neighbours: 37 and 100 have no common divisor.
        for tag in (start + place * 37 % 100 for place in range(100)):
            confirms.settle(tag, multiple=False, error_of=None)
            assert opened[tag].done()

    assert len(confirms) == 0
    assert all(confirm.exception() is None for confirm in opened.values())


async def test_tag_zero_with_multiple_means_all() -> None:
    confirms = Confirms()
    opened = numbered(confirms, range(1, 4))

    confirms.settle(0, multiple=True, error_of=None)

    assert done(opened) == {1, 2, 3}


async def test_refusal_fails_what_it_covers() -> None:
    confirms = Confirms()
    opened = numbered(confirms, range(1, 4))

    confirms.settle(2, multiple=True, error_of=refused)

    for number in (1, 2):
        with pytest.raises(PublishNotConfirmedError, match="refused"):
            await opened[number]
    assert not opened[3].done()


@pytest.mark.parametrize("multiple", [True, False])
async def test_confirm_of_what_was_never_published_is_broken(multiple: bool) -> None:
    confirms = Confirms()
    numbered(confirms, [1])

    with pytest.raises(BrokenFrameError, match="tag 2"):
        confirms.settle(2, multiple=multiple, error_of=None)


async def test_confirm_that_comes_twice_changes_nothing() -> None:
    confirms = Confirms()
    opened = numbered(confirms, range(1, 3))

    confirms.settle(1, multiple=False, error_of=None)
    confirms.settle(1, multiple=False, error_of=None)
    confirms.settle(1, multiple=True, error_of=None)

    assert done(opened) == {1}
    assert len(confirms) == 1


async def test_returned_message_fails_before_its_confirm() -> None:
    confirms = Confirms()
    opened = numbered(confirms, range(1, 4))

    confirms.bounce("2")
    with pytest.raises(UnroutableError):
        await opened[2]
    confirms.settle(3, multiple=True, error_of=None)

    assert opened[1].exception() is None
    assert len(confirms) == 0


async def test_same_id_again_is_the_next_one_that_returns() -> None:
    confirms = Confirms()
    first = added(confirms, parcel("same"))
    confirms.bounce("same")
    second = added(confirms, parcel("same"))

    confirms.settle(1, multiple=False, error_of=None)
    assert not second.done()
    confirms.bounce("same")

    for confirm in (first, second):
        with pytest.raises(UnroutableError):
            await confirm


@pytest.mark.parametrize("message_id", [None, "unknown"])
async def test_return_of_a_stranger_concerns_nobody(message_id: str | None) -> None:
    confirms = Confirms()
    opened = numbered(confirms, [1])

    confirms.bounce(message_id)

    assert not done(opened)


async def test_cancelled_confirm_is_passed_over() -> None:
    confirms = Confirms()
    opened = numbered(confirms, range(1, 4))

    opened[1].cancel()
    opened[2].cancel()
    confirms.bounce("1")
    confirms.settle(3, multiple=True, error_of=None)

    assert opened[3].exception() is None


async def test_room_is_bounded_in_messages() -> None:
    confirms = Confirms()
    numbered(confirms, range(1, WINDOW + 1))
    waiting = asyncio.ensure_future(confirms.room(1))
    await asyncio.sleep(0)

    assert not confirms.has_room(1)
    assert not waiting.done()
    confirms.settle(5, multiple=False, error_of=None)

    await asyncio.wait_for(waiting, LIMIT_S)
    assert confirms.has_room(1)


async def test_room_is_bounded_in_bytes_and_one_large_message_passes() -> None:
    confirms = Confirms()
    assert confirms.has_room(WINDOW_BYTES + 1)
    added(confirms, parcel("1", WINDOW_BYTES - 10))

    assert confirms.has_room(10)
    assert not confirms.has_room(11)
    confirms.bounce("1")
    assert confirms.has_room(WINDOW_BYTES)


async def test_failing_ends_all_and_whoever_waits() -> None:
    confirms = Confirms()
    opened = numbered(confirms, range(1, WINDOW + 1))
    waiting = [asyncio.ensure_future(confirms.room(1)), asyncio.ensure_future(confirms.emptied())]
    await asyncio.sleep(0)
    opened[3].cancel()

    confirms.fail(lambda: ConnectionResetError("gone"))

    await asyncio.wait_for(asyncio.gather(*waiting), LIMIT_S)
    with pytest.raises(ConnectionResetError):
        await opened[1]
    assert len(confirms) == 0
    # What the broker said before it knew concerns nobody any more.
    confirms.settle(7, multiple=True, error_of=None)
    confirms.settle(WINDOW, multiple=False, error_of=None)
    assert all(confirm.cancelled() or confirm.exception() for confirm in opened.values())


class Publishing:
    """Publishes the next message in the moment in which it hears of its own confirm."""

    def __init__(self, confirms: Confirms) -> None:
        self.next = asyncio.get_running_loop().create_future()
        self._confirms = confirms

    def done(self) -> bool:
        return False

    def set_result(self, _result: None, /) -> None:
        self._confirms.add(parcel("next", 5), self.next)

    def set_exception(self, _exception: Exception, /) -> None:
        raise AssertionError


async def test_who_hears_of_a_confirm_may_publish_at_once() -> None:
    confirms = Confirms()
    first = Publishing(confirms)
    confirms.add(parcel("first"), first)
    last = added(confirms, parcel("last"))

    confirms.settle(0, multiple=True, error_of=None)
    assert last.done()
    assert not first.next.done()
    assert len(confirms) == 1

    confirms.settle(3, multiple=False, error_of=None)
    assert first.next.done()
    assert len(confirms) == 0


async def test_no_tag_is_taken_where_there_is_no_room() -> None:
    confirms = Confirms()
    opened = numbered(confirms, range(1, WINDOW + 1))

    with pytest.raises(BufferError, match="wait for room"):
        added(confirms, parcel("one more"))
    confirms.settle(WINDOW, multiple=True, error_of=None)
    after = added(confirms, parcel("after"))
    confirms.settle(WINDOW + 1, multiple=False, error_of=None)

    assert len(done(opened)) == WINDOW
    assert after.done()


async def test_no_tag_is_taken_where_there_is_no_room_for_its_bytes() -> None:
    confirms = Confirms()
    large = added(confirms, parcel("large", WINDOW_BYTES - 10))

    with pytest.raises(BufferError, match="wait for room"):
        added(confirms, parcel("too much", 11))
    small = added(confirms, parcel("small", 10))
    confirms.settle(2, multiple=True, error_of=None)

    assert large.done()
    assert small.done()
    assert len(confirms) == 0


async def test_tag_that_was_given_back_is_the_next_one() -> None:
    confirms = Confirms()
    added(confirms, parcel("unwritable", 9))
    confirms.take_back(parcel("unwritable", 9))
    assert len(confirms) == 0
    assert confirms.has_room(WINDOW_BYTES + 1)

    second = added(confirms, parcel("second"))
    confirms.settle(1, multiple=False, error_of=None)

    assert second.done()
