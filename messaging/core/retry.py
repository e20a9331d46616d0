"""`RetryPolicy` and the verdicts: what to do with a delivery, as a value (docs/failure.md).

Data in, data out: a policy sees a `Fault`, never an exception or the broker, so its whole test is a table.

    attempt 1              fails → once more in the process, after at most 100 ms
    attempt 2              fails → rung 1 s
    attempts 3, 4, 5, 6    fail  → rungs 5 s, 30 s, 2 min, 10 min
    attempt 7              fails → dead letter
"""

from dataclasses import dataclass
from typing import Final

from messaging.core.fault import Fault
from messaging.errors import ConfigurationError, HandlerSignal

__all__ = ["Ack", "Bury", "Defer", "Move", "Refuse", "Retry", "RetryPolicy", "Skip", "Verdict"]

IN_PROCESS_MAX_S: Final = 0.1
# The broker closes the channel of whoever holds a message for half an hour (docs/topology.md).
BREAK_MAX_S: Final = 600.0
RUNG_MAX_S: Final = 24 * 3600.0
ATTEMPTS_MAX: Final = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Ack:
    """Handled."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """Run again after a delay: in the process, or by way of a rung of the ladder."""

    delay_s: float
    in_process: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Bury:
    """Give up: to the dead letters, with the fault."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Refuse:
    """Authentic but refused: to the refused queue, whole and without a fault."""

    code: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Skip:
    """Nothing to do and nothing lost: a duplicate, an event that is not for this service, a forgery."""

    code: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Defer:
    """Not now: to a rung without counting an attempt."""

    delay_s: float
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """Not here: into another queue of the same service, unread."""

    queue: str


Verdict = Ack | Retry | Bury | Refuse | Skip | Defer | Move


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """How often and how late a failed message is tried again.

    Attributes:
        immediate: Runs in the process right after a failure, before the ladder; ≥ 0.
        delays_s: Rungs of the ladder in order, seconds; ascending, whole milliseconds.
        transient: Exception classes that are always worth another try.
        permanent: Exception classes that never are; wins over `transient`.
        break_after: Transient failures in a row after which the handler's queue pauses; 0 for never. Not of requests.
        break_for_s: How long it pauses before one message is tried, seconds.
    """

    immediate: int = 1
    delays_s: tuple[float, ...] = (1.0, 5.0, 30.0, 120.0, 600.0)
    transient: tuple[type[BaseException], ...] = ()
    permanent: tuple[type[BaseException], ...] = ()
    break_after: int = 0
    break_for_s: float = 30.0

    def __post_init__(self) -> None:
        if self.immediate < 0 or self.immediate + len(self.delays_s) >= ATTEMPTS_MAX:
            raise ConfigurationError(f"immediate={self.immediate} and {len(self.delays_s)} rungs: use 0 to 998 in all")
        if list(self.delays_s) != sorted(self.delays_s):
            raise ConfigurationError(f"delays_s={self.delays_s} must ascend")
        if self.break_after < 0 or not 0 < self.break_for_s <= BREAK_MAX_S:
            raise ConfigurationError(
                f"break_after={self.break_after}, break_for_s={self.break_for_s:g}: use 0 or more failures, and more "
                f"than 0 to {BREAK_MAX_S:g} seconds"
            )
        if any(not 0.001 <= delay <= RUNG_MAX_S for delay in self.delays_s):
            raise ConfigurationError(f"delays_s={self.delays_s}: each rung takes 0.001 to {RUNG_MAX_S:.0f} seconds")

    @property
    def attempts(self) -> int:
        """How often the handler runs before the message is buried."""
        return 1 + self.immediate + len(self.delays_s)

    @property
    def rungs_ms(self) -> tuple[int, ...]:
        """Delays of the ladder in milliseconds: what topology declares."""
        return tuple(round(delay * 1000) for delay in self.delays_s)

    def is_permanent(self, error: BaseException) -> bool | None:
        """Return what the policy declares of an exception; None when it declares nothing.

        `Reject` and `RetryLater` are a handler's own decision: no declared class, however broad, overrides them.
        """
        if isinstance(error, HandlerSignal):
            return None
        if isinstance(error, self.permanent):
            return True
        return False if isinstance(error, self.transient) else None

    def delay_s(self, attempt: int, *, jitter: float) -> float:
        """Return how long to wait before the next attempt.

        Args:
            attempt: The attempt that just failed, from 1; at most `attempts` - 1.
            jitter: Uniform sample in [0, 1); spreads the runs in the process, rungs are fixed.

        Returns:
            Seconds: below 0.1 in the process, else one of the rungs.

        Raises:
            ValueError: attempt is outside its range.

        Source: docs/failure.md.
        """
        if not 1 <= attempt < self.attempts:
            raise ValueError(f"attempt {attempt} has no delay: this policy has {self.attempts} attempts")
        if attempt <= self.immediate:
            return IN_PROCESS_MAX_S * jitter
        return self.delays_s[attempt - self.immediate - 1]

    def decide(self, fault: Fault, *, jitter: float) -> Retry | Bury:
        """Return what follows from a failure.

        Args:
            fault: What failed, `attempts` included.
            jitter: Uniform sample in [0, 1).
        """
        if fault.permanent:
            return Bury(reason="permanent")
        if fault.attempts >= self.attempts:
            return Bury(reason=f"{fault.attempts} attempts")
        if fault.retry_after_s is not None and self.delays_s:
            return Retry(delay_s=self._rung_for(fault.retry_after_s))
        in_process = fault.attempts <= self.immediate
        return Retry(delay_s=self.delay_s(fault.attempts, jitter=jitter), in_process=in_process)

    def _rung_for(self, wish_s: float) -> float:
        """Return the first rung that is not shorter than the wish, or the longest."""
        return next((delay for delay in self.delays_s if delay >= wish_s), self.delays_s[-1])
