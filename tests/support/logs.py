"""What was logged, as data."""

from collections.abc import Iterator
from contextlib import contextmanager

import structlog
from structlog.testing import LogCapture

__all__ = ["Logs", "captured_logs"]


class Logs(LogCapture):
    """Every entry of every level since the test began."""

    def of(self, event: str) -> list[dict[str, object]]:
        """Return the entries of one event."""
        return [dict(entry) for entry in self.entries if entry["event"] == event]

    @property
    def events(self) -> list[str]:
        """The events in order."""
        return [entry["event"] for entry in self.entries]


@contextmanager
def captured_logs() -> Iterator[Logs]:
    """Collect what is logged instead of printing it; afterwards structlog is as it was made."""
    logs = Logs()
    structlog.configure(
        processors=[logs], wrapper_class=structlog.make_filtering_bound_logger(0), cache_logger_on_first_use=False
    )
    try:
        yield logs
    finally:
        structlog.reset_defaults()
