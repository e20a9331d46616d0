"""The rotation drill, for a change of suites: the bundle reaches one service after the other, senders first."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from messaging import Settings
from messaging.security.bundle_edit import with_part
from messaging.security.evidence import look_at
from messaging.security.keyfile import keyring_file, write_keyring
from messaging.security.private_files import write_file
from messaging.security.public_part import export_part, part_of
from messaging.security.suite_steps import earliest_ms, with_suite, with_suites
from messaging.security.trust import BUNDLE_FILE
from messaging.transports.memory import MemoryBroker
from messaging.transports.memory.broker import Receipt
from messaging.transports.memory.parcel import Parcel
from tests.support.drill import LIFE_MS, Drill
from tests.support.waiting import eventually

__all__ = ["SuiteDrill"]


class CountingBroker(MemoryBroker):
    """Counts what is published by the suite that its header names."""

    def __init__(self) -> None:
        super().__init__()
        self.suites: Counter[int] = Counter()

    def publish(self, parcel: Parcel) -> Receipt:
        self.suites[look_at(parcel.body).header.address.suite] += 1
        return super().publish(parcel)


@dataclass
class SuiteDrill(Drill):
    """Changes suites over the embedded broker while messages flow.

    Attributes:
        counting: The broker.
    """

    counting: CountingBroker = field(default_factory=CountingBroker)

    async def __aenter__(self) -> "SuiteDrill":
        await super().__aenter__()
        return self

    async def add_suite_while_flowing(self, identity: str, share: int) -> None:
        """Publish keys of suite 2 for one identity."""

        async def change() -> None:
            folder = self.trusting.folder
            keyring = self.trusting.keyrings[identity] = with_suite(self.trusting.keyrings[identity], 2)
            folder.keep_part(export_part(keyring), part_of(keyring))
            write_keyring(keyring, self.folder / identity / keyring_file(identity), replace=True)
            await self._restart(identity)
            self.trusting.put(
                with_part(folder.content(), part_of(keyring)), now_ms=self.clock.now_ms(), life_ms=LIFE_MS
            )
            self.distribute()
            await self._everybody_has_it()

        await self._while_flowing(share, change)

    async def list_while_flowing(self, suites: Sequence[int], share: int) -> Counter[int]:
        """Put another list of suites in force; returns how many messages were sealed in which meanwhile."""
        # Nothing is under way then, so the wait for the step's earliest time may be cut short.
        await self.quiet()
        self.clock.jump_to(earliest_ms(self.trusting.folder.history(), suites))
        before = self.counting.suites.copy()

        async def change() -> None:
            now_ms = self.clock.now_ms()
            content = with_suites(self.trusting.folder.content(), suites, now_ms=now_ms)
            self.trusting.put(content, now_ms=now_ms, life_ms=LIFE_MS)
            for identity in self.identities:
                await self._hand_over(identity)

        await self._while_flowing(share, change)
        return self.counting.suites - before

    def _settings_of(self, name: str) -> Settings:
        self._broker = self.counting
        return super()._settings_of(name)

    async def _while_flowing(self, share: int, change: Callable[[], Awaitable[None]]) -> None:
        begun = len(self.sent)
        async with asyncio.TaskGroup() as group:
            flowing = group.create_task(self._flow_until_told(share))
            await eventually(lambda: len(self.sent) - begun >= share // 4, what="the flow has begun")
            await change()
            self._told.set()
            await flowing
        self._told.clear()

    async def _hand_over(self, identity: str) -> None:
        """Give one service the bundle, and let messages flow between it and those that have the old one."""
        raw = self.trusting.folder.current()
        assert raw is not None
        write_file(self.folder / identity / BUNDLE_FILE, raw, replace=True, mode=0o644)
        version, sent = self.trusting.folder.content()["version"], len(self.sent)
        await eventually(
            lambda: all(
                replica._parts is not None and replica._parts.trust.current.version == version
                for replica in self._replicas[identity]
            ),
            what=f"the bundle with {identity}",
        )
        await eventually(lambda: len(self.sent) > sent, what="messages between old and new")
