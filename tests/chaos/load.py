"""The load: a process of its own that calls the chaos service without a pause and writes down what it was told.

`python -m tests.chaos.load history.jsonl --seed 1 --rate 40 --mix '{"apply": 20, "ask": 2}'`. Ends in order on SIGTERM:
no new calls, and every open one has its end written. A call whose outcome is unknown is repeated under the same id, as
applications do. `CHAOS_AGE_S`: its clock is so far behind, and so old is what it sends. In a soak SIGUSR1 makes it
pause and say what it holds once no call is open, SIGUSR2 makes it go on.
"""

import argparse
import asyncio
import json
import os
import random
import signal
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final
from uuid import UUID

from messaging import MessagingError, Service
from messaging.ambient import real_ambient
from messaging.runtime.seams import Seams
from tests.chaos.contract import Apply, Ask, AskExtra, Enter, Extra, Kill, NewerApply, Spoil, Stall, Transfer
from tests.chaos.history import Outcome, What, Writer
from tests.chaos.resting import answering

__all__ = ["CALL_TIMEOUT_S", "Load"]

CALL_TIMEOUT_S: Final = 5.0
_OPEN_MAX: Final = 256
_TRIES: Final = 4
_AGAIN_S: Final = 0.5

_Call = Apply | NewerApply | Spoil | Kill | Stall | Transfer | Enter | Extra | Ask | AskExtra


_PLAIN: Final[Mapping[What, type[NewerApply | Spoil | Kill | Extra | Ask | AskExtra]]] = {
    What.SPOIL: Spoil,
    What.KILL: Kill,
    What.NEWER: NewerApply,
    What.EXTRA: Extra,
    What.ASK: Ask,
    What.ASK_EXTRA: AskExtra,
}


@dataclass(slots=True)
class _Account:
    """One account with an order: its entries are sent one after the other, each once the one before is confirmed."""

    name: str
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    entries: int = 0
    is_open: bool = True


class Load:
    """Calls at a rate.

    Args:
        service: Who calls.
        writer: The history.
        chance: Decides what is called; its seed makes a run repeatable as far as a run can be.
        mix: Weight of each operation.
        accounts: How many accounts transfers are between, and how many have entries in an order.
        flaky: Share of commands whose first runs fail.
        stall_s: What a handler takes that takes long.
    """

    def __init__(
        self,
        service: Service,
        writer: Writer,
        *,
        chance: random.Random,
        mix: Mapping[What, int],
        accounts: int = 0,
        flaky: float = 0.0,
        stall_s: float = 0.0,
    ) -> None:
        self._service = service
        self._writer = writer
        self._chance = chance
        self._mix = mix
        self._accounts = accounts
        self._flaky = flaky
        self._stall_s = stall_s
        self._room = asyncio.Semaphore(_OPEN_MAX)
        self._open = 0
        self._flowing, self._idle = asyncio.Event(), asyncio.Event()
        self._flowing.set()
        self._idle.set()
        # Of this load alone: another begins to count anew.
        self._ordered = [_Account(f"{chance.getrandbits(32):08x}") for _ in range(accounts)]

    async def run(self, *, rate: float, limit: int, stopping: asyncio.Event) -> None:
        """Call until told to stop, or `limit` times if that is not 0."""
        done = 0
        async with asyncio.TaskGroup() as calls:
            while not stopping.is_set() and not 0 < limit <= done:
                await self._room.acquire()
                await self._flowing.wait()
                self._open += 1
                self._idle.clear()
                what = self._chance.choices(list(self._mix), list(self._mix.values()))[0]
                op_id = UUID(int=self._chance.getrandbits(128), version=4)
                calls.create_task(self._enter(op_id) if what is What.ENTER else self._call(op_id, what))
                done += 1
                await asyncio.sleep(self._chance.expovariate(rate))

    async def rest(self) -> None:
        """Call no more until told to `go_on`; returns when every open call has ended."""
        self._flowing.clear()
        await self._idle.wait()

    def go_on(self) -> None:
        """End the rest."""
        self._flowing.set()

    async def _enter(self, op_id: UUID) -> None:
        account = self._chance.choice(self._ordered)
        async with account.turn:
            if not account.is_open:
                # The fate of the entry before is unknown: whatever followed it now would have no order.
                self._ended()
                return
            is_flaky = self._chance.random() < self._flaky
            entry = Enter(op_id=op_id, account=account.name, number=account.entries, fails=1 if is_flaky else 0)
            account.entries += 1
            account.is_open = await self._call(op_id, What.ENTER, entry)

    async def _call(self, op_id: UUID, what: What, call: _Call | None = None) -> bool:
        self._writer.begin(op_id, what)
        call = call or self._prepared(op_id, what)
        longest_s, tries, outcome, error = 0.0, 0, Outcome.UNKNOWN, ""
        try:
            while tries < _TRIES:
                tries += 1
                began_s = time.monotonic()
                outcome, error = await self._try(call, op_id)
                longest_s = max(longest_s, time.monotonic() - began_s)
                if outcome is Outcome.CONFIRMED:
                    break
                await asyncio.sleep(_AGAIN_S)
        finally:
            self._writer.end(op_id, outcome, took_s=longest_s, tries=tries, error=error)
            self._ended()
        return outcome is Outcome.CONFIRMED

    def _ended(self) -> None:
        self._room.release()
        self._open -= 1
        if not self._open:
            self._idle.set()

    async def _try(self, call: _Call, op_id: UUID) -> tuple[Outcome, str]:
        try:
            if isinstance(call, Ask | AskExtra):
                await self._service.request(call, message_id=op_id, timeout=CALL_TIMEOUT_S)
            else:
                await self._service.send(call, message_id=op_id, timeout=CALL_TIMEOUT_S)
        except MessagingError as error:
            return Outcome.UNKNOWN, type(error).__name__
        return Outcome.CONFIRMED, ""

    def _prepared(self, op_id: UUID, what: What) -> _Call:
        if what in _PLAIN:
            return _PLAIN[what](op_id=op_id)
        match what:
            case What.APPLY:
                is_flaky = self._chance.random() < self._flaky
                return Apply(op_id=op_id, fails=self._chance.randint(1, 3) if is_flaky else 0)
            case What.STALL | What.BLOCK:
                return Stall(op_id=op_id, seconds=self._stall_s, blocks=what is What.BLOCK)
            case What.TRANSFER:
                source, target = self._chance.sample(range(self._accounts), 2)
                return Transfer(op_id=op_id, source=source, target=target, cents=self._chance.randint(1, 1_000))
            case _:
                raise ValueError(f"{what} is prepared elsewhere: an entry has its place in an account")


@asynccontextmanager
async def _caller(age_s: float) -> AsyncIterator[Service]:
    """Run the service that calls, on a clock that is so far behind."""
    service, real = Service("load"), real_ambient()
    old = replace(real, now_ms=lambda: real.now_ms() - round(age_s * 1_000))
    seams = Seams(
        settings=service.settings,
        ambient=old,
        around=lambda handler: handler.call,
        on_published=lambda _message, _envelope: None,
    )
    await service.start(seams=seams if age_s else None)
    try:
        yield service
    finally:
        await service.stop()


async def _main(arguments: argparse.Namespace) -> None:
    loop, stopping = asyncio.get_running_loop(), asyncio.Event()
    mix = {What(what): weight for what, weight in json.loads(arguments.mix).items()}
    with arguments.history.open("a") as file:
        async with _caller(float(os.environ.get("CHAOS_AGE_S") or 0)) as service:
            load = Load(
                service,
                Writer(file),
                chance=random.Random(arguments.seed),  # noqa: S311 - repeatable, nothing is secret
                mix=mix,
                accounts=arguments.accounts,
                flaky=arguments.flaky,
                stall_s=arguments.stall_s,
            )

            def stop() -> None:
                stopping.set()
                load.go_on()

            loop.add_signal_handler(signal.SIGTERM, stop)
            loop.add_signal_handler(signal.SIGUSR2, load.go_on)
            resting = asyncio.create_task(answering(load.rest))
            await load.run(rate=arguments.rate, limit=arguments.limit, stopping=stopping)
            resting.cancel()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("history", type=Path)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--rate", type=float, required=True)
    parser.add_argument("--mix", required=True)
    parser.add_argument("--limit", type=int, default=0)
    parser.add_argument("--accounts", type=int, default=0)
    parser.add_argument("--flaky", type=float, default=0.0)
    parser.add_argument("--stall-s", type=float, default=0.0)
    asyncio.run(_main(parser.parse_args()))
