"""A clock that stands still until it is advanced, and ids that count."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final
from uuid import UUID

from messaging.core.ambient import Ambient

__all__ = ["FixedClock"]

START: Final = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass(slots=True, eq=False)
class _Timer:
    due_ms: int
    _call: Callable[[], None]
    is_cancelled: bool = False

    def call(self) -> None:
        if not self.is_cancelled:
            self._call()

    def cancel(self) -> None:
        self.is_cancelled = True


class FixedClock:
    """Supplies an `Ambient` whose time moves only by `advance`."""

    def __init__(self, start: datetime = START) -> None:
        self._start_ms = int(start.timestamp() * 1000)
        self._elapsed_ms = 0
        self._ids = 0
        self._timers: list[_Timer] = []
        self.ambient = Ambient(
            now_ms=self.now_ms, monotonic_s=lambda: self._elapsed_ms / 1000, new_id=self._new_id, jitter=lambda: 0.0
        )

    def now_ms(self) -> int:
        """Return the time, Unix milliseconds."""
        return self._start_ms + self._elapsed_ms

    def advance(self, delay_ms: int) -> None:
        """Move on by so many milliseconds, and call what falls due, the earliest first."""
        self._elapsed_ms += delay_ms
        now_ms = self.now_ms()
        due, self._timers = (
            [timer for timer in self._timers if timer.due_ms <= now_ms],
            [timer for timer in self._timers if timer.due_ms > now_ms],
        )
        for timer in sorted(due, key=lambda timer: timer.due_ms):
            timer.call()

    def later(self, delay_s: float, call: Callable[[], None]) -> "_Timer":
        """Call a function once so many seconds have passed."""
        timer = _Timer(self.now_ms() + round(delay_s * 1000), call)
        self._timers.append(timer)
        return timer

    def next_due_ms(self) -> int | None:
        """Return when the next call is due, Unix milliseconds; None when there is none."""
        return min((timer.due_ms for timer in self._timers if not timer.is_cancelled), default=None)

    def _new_id(self) -> UUID:
        """Return a UUIDv7 of this time whose random part counts up: unique, and the same in every run."""
        self._ids += 1
        return UUID(int=(self.now_ms() << 80) | (0x7 << 76) | (0b10 << 62) | self._ids)
