"""Partitions: commands of one key run one after the other, whatever fails, and the others go on."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from messaging import Command, ConfigurationError, Context, Reject, RetryLater, RetryPolicy, Service
from messaging.core.partition import partition_of, slot_of
from messaging.core.topology import slot_routing_key
from messaging.runtime.admission import SUSPECT_DELIVERIES
from messaging.runtime.consumer import FUSE_DELIVERIES
from messaging.runtime.partitions import PARTITION_PREFETCH
from messaging.stores.base import StoreUnavailableError
from messaging.transports.memory import MemoryTransport
from tests.support.logs import Logs
from tests.support.stage import Stage
from tests.support.waiting import eventually, holds


class Book(Command, name="orders.book", key="account"):
    account: str
    number: int


class Note(Command, name="orders.note"):
    number: int


Step = tuple[str, int]
SLOW = RetryPolicy(immediate=0, delays_s=(1.0, 5.0))


class Ledger:
    """A service that notes what it did, and fails where a test says so."""

    def __init__(self, partitions: int | None = 2, retry: RetryPolicy = SLOW) -> None:
        self.tried: list[Step] = []
        self.done: list[Step] = []
        self.fails: Callable[[Book, int], Exception | None] = lambda command, attempt: None
        self.gate = asyncio.Event()
        self.gate.set()
        self.service = Service("orders", partitions=partitions, retry=retry)
        self.service.on_command(Book)(self._book)
        self.service.on_command(Note)(self._note)

    async def _book(self, command: Book, context: Context) -> None:
        self.tried.append((command.account, command.number))
        await self.gate.wait()
        error = self.fails(command, context.attempt)
        if error is not None:
            raise error
        self.done.append((command.account, command.number))

    async def _note(self, command: Note, context: Context) -> None:
        self.done.append(("", command.number))

    def of(self, account: str) -> list[int]:
        return [number for name, number in self.done if name == account]


def until(attempt: int, *steps: Step) -> Callable[[Book, int], Exception | None]:
    """Return what lets steps fail before an attempt."""
    return lambda command, now: (
        RuntimeError("not yet") if (command.account, command.number) in steps and now < attempt else None
    )


async def book(stage: Stage, *steps: Step) -> None:
    for account, number in steps:
        await stage.send(Book(account=account, number=number), sender="users")


@asynccontextmanager
async def beside(stage: Stage, service: Service) -> AsyncIterator[Service]:
    """Run another replica."""
    await service.start(seams=stage._seams)
    try:
        yield service
    finally:
        await service.stop()


def transport_of(service: Service) -> MemoryTransport:
    assert service._parts is not None
    transport = service._parts.transport
    assert isinstance(transport, MemoryTransport)
    return transport


async def test_commands_of_a_key_run_in_order_and_of_others_beside_them() -> None:
    ledger = Ledger()
    ledger.gate.clear()

    async with Stage(ledger.service) as stage:
        await book(stage, ("a", 1), ("a", 2), ("b", 1), ("c", 1), ("b", 2))
        await eventually(lambda: len(ledger.tried) == 3)
        await holds(lambda: ledger.tried == [("a", 1), ("b", 1), ("c", 1)] or len(ledger.tried) == 3, 0.05)
        assert set(ledger.tried) == {("a", 1), ("b", 1), ("c", 1)}
        ledger.gate.set()
        await stage.settled()

    assert ledger.of("a") == ledger.of("b") == [1, 2]
    assert ledger.of("c") == [1]


async def test_followers_wait_behind_what_is_tried_again_and_other_keys_do_not() -> None:
    ledger = Ledger()
    ledger.fails = until(3, ("a", 1))

    async with Stage(ledger.service) as stage:
        await book(stage, ("a", 1), ("a", 2), ("b", 1), ("b", 2))
        await stage.settled()
        assert (ledger.of("a"), ledger.of("b")) == ([], [1, 2])
        assert ledger.service.running == 0
        await stage.advance(1.0)
        assert ledger.of("a") == []
        await stage.advance(5.0)

    assert ledger.of("a") == [1, 2]
    assert [step for step in ledger.tried if step[0] == "a"] == [("a", 1)] * 3 + [("a", 2)]


async def test_what_is_buried_lets_its_followers_go_on() -> None:
    ledger = Ledger()
    ledger.fails = lambda command, attempt: Reject("no") if command.number == 1 else None

    async with Stage(ledger.service) as stage:
        await book(stage, ("a", 1), ("a", 2))
        await stage.settled()
        dead = stage.dead("orders")

    assert ledger.of("a") == [2]
    assert [(letter.message_name, letter.slot) for letter in dead] == [("orders.book", slot_of("a"))]


async def test_replay_goes_through_its_partition() -> None:
    ledger = Ledger()
    ledger.fails = lambda command, attempt: Reject("no") if command.number == 1 else None

    async with Stage(ledger.service) as stage:
        await book(stage, ("a", 1))
        await stage.settled()
        ledger.fails = until(2, ("a", 2))
        await book(stage, ("a", 2))
        await stage.settled()

        report = await stage.replay("orders")
        await stage.settled()
        assert (report.replayed, ledger.of("a")) == (1, [])
        await stage.advance(1.0)

    # It waited behind the one of its key that was being tried again.
    assert ledger.of("a") == [2, 1]


async def test_command_without_a_key_is_handled_as_ever() -> None:
    ledger = Ledger()

    async with Stage(ledger.service) as stage:
        await stage.send(Note(number=1), sender="users")
        await stage.settled()

    assert ledger.done == [("", 1)]


async def test_service_without_partitions_takes_commands_with_a_key_too() -> None:
    ledger = Ledger(partitions=None)

    async with Stage(ledger.service) as stage:
        await book(stage, ("a", 1), ("b", 1))
        await stage.settled()
        assert [name for name in stage.broker.loads() if ".p" in name] == []

    assert set(ledger.done) == {("a", 1), ("b", 1)}


async def test_what_comes_into_the_plain_queue_with_a_key_goes_into_its_partition() -> None:
    ledger = Ledger(partitions=4)

    async with Stage(ledger.service) as stage:
        stage.spy()
        await book(stage, ("a", 1))
        await stage.settled()
        (sealed,) = stage.spied()
        ledger.fails = until(2, ("b", 1))
        await book(stage, ("b", 1))
        stage.inject("orders", "commands", sealed)
        await stage.settled()
        counts = ledger.service.health.details["counts"]

    assert isinstance(counts, dict)
    assert counts["moved"] == 1
    # The partition's own inbox check: it ran already.
    assert counts["skipped.duplicate"] == 1


async def test_each_key_has_the_partition_of_its_slot() -> None:
    ledger = Ledger(partitions=4)
    ledger.fails = lambda command, attempt: RuntimeError("later")

    async with Stage(ledger.service) as stage:
        await book(stage, ("a", 1), ("b", 1), ("c", 1))
        await stage.settled()
        found = {part: stage.depth("orders", f"commands.p{part}") for part in range(4)}

    expected = [partition_of(slot_of(account), 4) for account in "abc"]
    assert found == {part: expected.count(part) for part in range(4)}


async def test_lost_link_keeps_the_order_and_begins_nothing_twice() -> None:
    ledger = Ledger()
    ledger.gate.clear()

    async with Stage(ledger.service) as stage:
        await book(stage, *[("a", number) for number in range(5)])
        await eventually(lambda: ledger.tried == [("a", 0)])

        transport_of(ledger.service).cut()
        await asyncio.sleep(0)
        ledger.gate.set()
        await stage.settled()

    # The first came again while it ran, and the inbox knew it.
    assert ledger.of("a") == list(range(5))


async def test_what_rests_when_the_link_is_lost_begins_anew() -> None:
    ledger = Ledger()
    ledger.fails = until(2, ("a", 0))

    async with Stage(ledger.service) as stage:
        await book(stage, *[("a", number) for number in range(3)])
        await stage.settled()
        transport_of(ledger.service).cut()
        await stage.settled()
        assert ledger.of("a") == []
        assert ledger.tried == [("a", 0)] * 2
        await stage.advance(1.0)

    assert ledger.of("a") == [0, 1, 2]


async def test_another_replica_takes_over_in_order_when_one_stops() -> None:
    first, second = Ledger(), Ledger()
    first.fails = until(99, ("a", 1))

    async with Stage(first.service) as stage, beside(stage, second.service):
        await book(stage, *[("a", number) for number in range(5)])
        await stage.settled()
        assert (first.of("a"), second.of("a")) == ([0], [])

        await first.service.stop()
        await eventually(lambda: len(second.of("a")) == 4)

    assert second.of("a") == [1, 2, 3, 4]


async def test_another_replica_takes_over_in_order_when_one_dies() -> None:
    first, second = Ledger(), Ledger()
    first.gate.clear()

    async with Stage(first.service) as stage, beside(stage, second.service):
        await book(stage, *[("a", number) for number in range(5)])
        await eventually(lambda: first.tried == [("a", 0)])

        transport_of(first.service).kill()
        await eventually(lambda: len(second.of("a")) == 5)
        first.gate.set()

    assert second.of("a") == [0, 1, 2, 3, 4]


async def test_more_followers_than_fit_wait_at_the_broker() -> None:
    ledger = Ledger(partitions=1)
    ledger.fails = until(2, ("a", 0))

    async with Stage(ledger.service) as stage:
        await book(stage, *[("a", number) for number in range(PARTITION_PREFETCH + 5)])
        await stage.settled()
        load = stage.broker.loads()[stage.names.partition("orders", 0)]
        assert (load.unsettled, load.ready) == (PARTITION_PREFETCH, 5)
        await stage.advance(1.0)

    assert ledger.of("a") == list(range(PARTITION_PREFETCH + 5))


async def test_key_is_held_for_so_long_and_no_longer(logs: Logs) -> None:
    ledger = Ledger(retry=RetryPolicy(immediate=0, delays_s=(600.0, 600.0)))
    ledger.fails = until(99, ("a", 0))

    async with Stage(ledger.service) as stage:
        await book(stage, ("a", 0), ("a", 1))
        await stage.settled()
        await stage.advance(600.0)
        assert ledger.of("a") == []
        await stage.advance(600.0)

    assert ledger.of("a") == [1]


async def test_policy_that_would_hold_a_key_too_long_is_refused() -> None:
    ledger = Ledger(retry=RetryPolicy(delays_s=(600.0, 601.0)))

    with pytest.raises(ConfigurationError, match=r"_book waits 1201 s between its tries.*shorten delays_s"):
        async with Stage(ledger.service):
            pass


async def test_partitions_without_a_key_are_refused() -> None:
    service = Service("orders", partitions=2)

    @service.on_command(Note)
    async def note(command: Note, context: Context) -> None:
        pass

    with pytest.raises(ConfigurationError, match="handles no command with a key"):
        async with Stage(service):
            pass


async def test_trouble_that_lasts_returns_everything_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("messaging.runtime.consumer._HOLD_FIRST_S", 0.001)
    monkeypatch.setattr("messaging.runtime.consumer._HOLD_MAX_S", 0.002)
    monkeypatch.setattr("messaging.runtime.consumer.HOLD_LIMIT_S", 0.003)
    ledger = Ledger(partitions=1)

    async with Stage(ledger.service) as stage:
        assert ledger.service._engine is not None
        inbox = ledger.service._engine._consumer._inbox
        reserve, refusals = inbox.reserve, 0

        async def refuse(*args: object, **words: object) -> object:
            nonlocal refusals
            refusals += 1
            raise StoreUnavailableError("away")

        with monkeypatch.context() as patch:
            patch.setattr(inbox, "reserve", refuse)
            await book(stage, *[("a", number) for number in range(4)])
            await eventually(lambda: refusals > 10)
        assert inbox.reserve == reserve
        await eventually(lambda: len(ledger.of("a")) == 4)

    assert ledger.of("a") == [0, 1, 2, 3]


async def test_handler_that_puts_off_again_and_again_is_buried_when_its_key_waited_long_enough() -> None:
    ledger = Ledger(retry=RetryPolicy(immediate=0, delays_s=(1.0, 500.0, 600.0)))
    ledger.fails = lambda command, attempt: RetryLater(600.0) if command.number == 0 else None

    async with Stage(ledger.service) as stage:
        await book(stage, ("a", 0), ("a", 1))
        await stage.settled()
        for _ in range(3):
            await stage.advance(600.0)
        (letter,) = stage.dead("orders")

    assert ledger.tried == [("a", 0)] * 3 + [("a", 1)]
    assert letter.fault.attempts == 3


async def test_what_arrives_while_it_stops_waits_for_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = Ledger(partitions=1)
    ledger.gate.clear()

    async with Stage(ledger.service) as stage:
        await book(stage, ("a", 0))
        await eventually(lambda: len(ledger.tried) == 1)
        stopping = asyncio.create_task(ledger.service.stop())
        await asyncio.sleep(0)
        client = await stage._publisher("users")
        await client.send(Book(account="b", number=0))
        ledger.gate.set()
        await stopping

        assert ledger.done == [("a", 0)]
        assert stage.depth("orders", "commands.p0") == 1


async def test_stop_gives_up_on_a_broker_that_confirms_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = Ledger(partitions=1)
    ledger.fails = lambda command, attempt: Reject("no")

    async def never(*_: object) -> None:
        await asyncio.Event().wait()

    async with Stage(ledger.service, drain_timeout_s=0.05) as stage:
        assert ledger.service._engine is not None
        monkeypatch.setattr(ledger.service._engine._settler, "_bury", never)
        await book(stage, ("a", 0))
        await eventually(lambda: len(ledger.tried) == 1)
        await ledger.service.stop()

        assert stage.depth("orders", "commands.p0") == 1


@pytest.mark.parametrize("part", ["_settler", "_consumer"])
async def test_defect_of_the_library_is_left_behind_and_its_key_goes_on(
    part: str, logs: Logs, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = Ledger(partitions=1)
    told: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, what: told.append(what["exception"]))

    async with Stage(ledger.service) as stage:
        owner = getattr(ledger.service._engine, part)
        method = {"_settler": "settle", "_consumer": "process"}[part]
        works = getattr(owner, method)
        left = 1

        async def breaks_once(*args: object, **words: object) -> object:
            nonlocal left
            left -= 1
            if left >= 0:
                raise RuntimeError("a defect")
            return await works(*args, **words)

        monkeypatch.setattr(owner, method, breaks_once)
        await book(stage, ("a", 0), ("a", 1))
        await stage.settled()

    assert [str(error) for error in told] == ["a defect"]
    assert sorted(set(ledger.of("a"))) == [0, 1]
    assert "delivery.abandoned" in logs.events


async def test_message_in_a_partition_of_others_costs_its_order_alone() -> None:
    ledger = Ledger(partitions=2)
    here = partition_of(slot_of("a"), 2)

    # The handler waits for its gate: nothing of it would end while the service drains.
    async with Stage(ledger.service, drain_timeout_s=0.01) as stage:
        stage.spy()
        ledger.gate.clear()
        await book(stage, ("a", 0))
        await eventually(lambda: len(ledger.tried) == 1)
        await ledger.service.stop()
        (sealed,) = stage.spied()
        # Whoever reaches the broker moves it.
        stage.broker.queue(stage.names.partition("orders", here)).drop()
        stage.inject("orders", f"commands.p{1 - here}", sealed)
        stage.inject("orders", f"commands.p{1 - here}", sealed[:-1] + bytes([sealed[-1] ^ 1]))
        ledger.gate.set()
        await ledger.service.start(seams=stage._seams)
        await stage.settled()

        assert ledger.of("a") == [0]
        assert stage.depth("orders", "quarantine") == 1


async def killed(stage: Stage, service: Service, ledger: Ledger, times: int) -> None:
    """Let replicas take what waits and die, so often."""
    for _ in range(times):
        ledger.tried.append(("next", 0))
        await service.start(seams=stage._seams)
        await eventually(lambda: ledger.tried[-1] != ("next", 0))
        transport_of(service).kill()
        await service.stop()


async def test_only_what_kills_its_workers_is_buried() -> None:
    ledger = Ledger(partitions=1)
    ledger.gate.clear()

    async with Stage(ledger.service, drain_timeout_s=0.01) as stage:
        await book(stage, ("a", 0), ("b", 0), ("a", 1), ("b", 1))
        await eventually(lambda: len(ledger.tried) == 2)
        transport_of(ledger.service).kill()
        await ledger.service.stop()
        # Whoever handles the first of a dies of it.
        await killed(stage, ledger.service, ledger, FUSE_DELIVERIES - 1)
        rounds = " ".join(account for account, _ in ledger.tried).split("next")[SUSPECT_DELIVERIES:]
        ledger.gate.set()
        await ledger.service.start(seams=stage._seams)
        await stage.settled()
        dead = stage.dead("orders")

    assert {tuple(started.split()) for started in rounds} == {("a",)}
    assert [letter.fault.error for letter in dead] == ["crash_loop"]
    assert (ledger.of("a"), ledger.of("b")) == ([1], [0, 1])


@settings(max_examples=25)
@given(
    sends=st.lists(st.sampled_from("abcd"), min_size=1, max_size=25),
    failures=st.dictionaries(st.integers(0, 24), st.integers(1, 4), max_size=8),
    cuts=st.sets(st.integers(0, 24), max_size=3),
    partitions=st.sampled_from([1, 2, 8]),
)
def test_order_of_each_key_survives_random_failures(
    sends: list[str], failures: dict[int, int], cuts: set[int], partitions: int
) -> None:
    async def run() -> None:
        ledger = Ledger(partitions=partitions, retry=RetryPolicy(immediate=1, delays_s=(1.0, 5.0)))
        # As often as given; with four attempts in all, four failures bury.
        left = dict(failures)

        def fails(command: Book, attempt: int) -> Exception | None:
            if left.get(command.number, 0) > 0:
                left[command.number] -= 1
                return RuntimeError("not yet")
            return None

        ledger.fails = fails
        async with Stage(ledger.service) as stage:
            for number, account in enumerate(sends):
                await book(stage, (account, number))
                if number in cuts:
                    transport_of(ledger.service).cut()
            await stage.settled()
            for _ in range(len(sends)):
                await stage.advance(6.0)
            buried = {letter.payload["number"] for letter in stage.dead("orders") if isinstance(letter.payload, dict)}

        for account in "abcd":
            mine = [number for number, name in enumerate(sends) if name == account]
            assert ledger.of(account) == [number for number in mine if number not in buried]
        assert all(failures.get(number, 0) >= 4 for number in buried)

    asyncio.run(run())


def test_routing_key_says_the_slot() -> None:
    assert slot_routing_key("orders.book.v1", 1) == "orders.book.v1.0.0.0.0.0.0.0.0.0.0.0.1"
