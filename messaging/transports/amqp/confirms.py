"""The publishes of one channel that the broker has not confirmed yet, by their tag.

The broker counts publishes from 1 and so do we: a tag is taken in the same step in which the frames are. It may confirm
one tag or all up to one, in any order. A returned message is named by its id alone and confirmed after that.
"""

import asyncio
from collections.abc import Callable
from typing import Final

from messaging.core.sealed import Label, Route
from messaging.transports.amqp.outcomes import unroutable
from messaging.transports.amqp.parcel import Parcel
from messaging.transports.amqp.wire import BrokenFrameError
from messaging.transports.base import Confirm

__all__ = ["WINDOW", "WINDOW_BYTES", "Confirms"]

WINDOW: Final = 256
"""How many messages may be unconfirmed on one channel."""

WINDOW_BYTES: Final = 16 * 1024 * 1024
"""How many bytes of messages may be unconfirmed on one channel; one larger message may be, alone."""

# What stands where no message is open.
_NONE: Final = (Parcel(b"", Route("", ""), Label("", ""), ""), None)


class Confirms:
    """What is open on one channel, bounded in messages and in bytes."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        # Nobody for those that were returned: they are told already, and only their confirm is still to come.
        self._open: dict[int, tuple[Parcel, Confirm | None]] = {}
        self._next = 1
        self._oldest = 1
        self._waiting = 0
        self._size_bytes = 0
        self._changes: list[asyncio.Future[None]] = []

    def __len__(self) -> int:
        return self._waiting

    def has_room(self, size_bytes: int) -> bool:
        """Whether a message of that size may be added now."""
        if not self._waiting:
            return True
        return self._waiting < WINDOW and self._size_bytes + size_bytes <= WINDOW_BYTES

    def add(self, parcel: Parcel, confirm: Confirm) -> None:
        """Take the next tag for a message.

        Raises:
            BufferError: There is no room for it.
        """
        waiting, size_bytes = self._waiting, self._size_bytes + len(parcel.body)
        if waiting and (waiting >= WINDOW or size_bytes > WINDOW_BYTES):
            raise BufferError("too many publishes wait for their confirms on this channel; wait for room() first")
        tag = self._next
        self._open[tag] = (parcel, confirm)
        self._next = tag + 1
        self._waiting = waiting + 1
        self._size_bytes = size_bytes

    def take_back(self, parcel: Parcel) -> None:
        """Give back the tag that was taken last: its message could not be written."""
        self._next -= 1
        del self._open[self._next]
        self._free(parcel)

    def settle(self, tag: int, *, multiple: bool, error_of: Callable[[Parcel], Exception] | None) -> None:
        """Take the broker's answer for a tag, or for all up to it; `error_of` makes the error of what it refused.

        Raises:
            BrokenFrameError: The tag was never given.
        """
        if tag >= self._next:
            raise BrokenFrameError(f"a confirm of tag {tag}, and only {self._next - 1} were published")
        # With `multiple`, zero means all of them (AMQP 0-9-1, 1.8.3.13).
        tags = range(self._oldest, (tag or self._next - 1) + 1) if multiple else range(tag, tag + 1)
        take = self._open.pop
        for each in tags:
            parcel, confirm = take(each, _NONE)
            if confirm is None:
                continue
            # Counted one by one: who hears of a confirm may publish at once.
            self._waiting -= 1
            self._size_bytes -= len(parcel.body)
            if confirm.done():
                continue
            if error_of is None:
                confirm.set_result(None)
            else:
                confirm.set_exception(error_of(parcel))
        if multiple:
            self._oldest = max(self._oldest, tags.stop)
        while self._oldest < self._next and self._oldest not in self._open:
            self._oldest += 1
        self._tell()

    def bounce(self, message_id: str | None) -> None:
        """Take a message that came back: the oldest one with that id which did not come back before."""
        for tag, (parcel, confirm) in self._open.items():
            if confirm is not None and parcel.message_id == message_id:
                self._free(parcel)
                self._open[tag] = (parcel, None)
                if not confirm.done():
                    confirm.set_exception(unroutable(parcel))
                break
        self._tell()

    def fail(self, error_of: Callable[[], Exception]) -> None:
        """End them all."""
        opened = tuple(self._open.values())
        self._open.clear()
        self._waiting = self._size_bytes = 0
        self._oldest = self._next
        for _, confirm in opened:
            if confirm is not None and not confirm.done():
                confirm.set_exception(error_of())
        self._tell()

    async def room(self, size_bytes: int) -> None:
        """Return once a message of that size may be added."""
        while not self.has_room(size_bytes):
            await self._changed()

    async def emptied(self) -> None:
        """Return once nothing is open."""
        while self._waiting:
            await self._changed()

    async def _changed(self) -> None:
        change = self._loop.create_future()
        self._changes.append(change)
        await change

    def _free(self, parcel: Parcel) -> None:
        self._waiting -= 1
        self._size_bytes -= len(parcel.body)

    def _tell(self) -> None:
        if self._changes:
            changes, self._changes = self._changes, []
            for change in changes:
                if not change.done():
                    change.set_result(None)
