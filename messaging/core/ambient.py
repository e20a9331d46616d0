"""What the outside world supplies: time, ids, randomness. A frozen record of callables, so that tests can fix it."""

from collections.abc import Callable
from dataclasses import dataclass
from uuid import UUID

__all__ = ["Ambient"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ambient:
    """The only door to clock, ids and chance (keys and salts apart, which `security` takes from the OS).

    Attributes:
        now_ms: Unix time in milliseconds.
        monotonic_s: Seconds that never go back.
        new_id: A fresh UUIDv7.
        jitter: A uniform sample in [0, 1).
    """

    now_ms: Callable[[], int]
    monotonic_s: Callable[[], float]
    new_id: Callable[[], UUID]
    jitter: Callable[[], float]
