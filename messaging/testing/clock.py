"""A clock that stands still until it is advanced, and ids that count."""

from datetime import UTC, datetime
from typing import Final
from uuid import UUID

from messaging.core.ambient import Ambient

__all__ = ["FixedClock"]

START: Final = datetime(2026, 1, 1, tzinfo=UTC)


class FixedClock:
    """Supplies an `Ambient` whose time moves only by `advance`."""

    def __init__(self, start: datetime = START) -> None:
        self._start_ms = int(start.timestamp() * 1000)
        self._elapsed_ms = 0
        self._ids = 0
        self.ambient = Ambient(
            now_ms=self.now_ms, monotonic_s=lambda: self._elapsed_ms / 1000, new_id=self._new_id, jitter=lambda: 0.0
        )

    def now_ms(self) -> int:
        """Return the time, Unix milliseconds."""
        return self._start_ms + self._elapsed_ms

    def advance(self, delay_ms: int) -> None:
        """Move on by so many milliseconds."""
        self._elapsed_ms += delay_ms

    def _new_id(self) -> UUID:
        """Return a UUIDv7 of this time whose random part counts up: unique, and the same in every run."""
        self._ids += 1
        return UUID(int=(self.now_ms() << 80) | (0x7 << 76) | (0b10 << 62) | self._ids)
