"""Sets up logging for the program; the library itself never configures it.

Two formats: `console` for people, `json` for machines, one object per line, both on stderr: stdout is for results. The
standard library's loggers (the AMQP client, the user's own) come out in the same format. Never the locals of a
traceback: they hold payloads.
"""

import logging
import sys
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Any, Final, TextIO

import structlog
from structlog.typing import Processor

from messaging.cli.render import escaped

__all__ = ["LogFormat", "LogLevel", "configure_logs", "verb_logs"]

# The transport reports every connection and channel problem of theirs in its own words.
_SILENCED: Final = ("aio_pika", "aiormq")


class LogFormat(StrEnum):
    """How a line looks."""

    CONSOLE = "console"
    JSON = "json"


class LogLevel(StrEnum):
    """The least important lines that are written."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


def configure_logs(format_: LogFormat, level: LogLevel, *, worker: int | None = None) -> None:
    """Configure structlog and the standard library's logging for `messaging run`: lines on stderr.

    Args:
        format_: For people or for machines.
        level: The least important lines to write.
        worker: Number of this worker process, written on each line when there are several.
    """
    _configure(sys.stderr, format_, level, is_cached=True)
    structlog.contextvars.clear_contextvars()
    if worker is not None:
        structlog.contextvars.bind_contextvars(worker=worker)


@contextmanager
def verb_logs(*, is_verbose: bool, file: Path | None) -> Iterator[None]:
    """Configure logs for the other verbs, whose output is not a log: errors alone, on stderr.

    Args:
        is_verbose: Show everything from info on.
        file: Append everything from info on to this file as JSON, which keeps the record of replays and discards.

    Raises:
        OSError: the file cannot be written.
    """
    if file is None:
        level = LogLevel.INFO if is_verbose else LogLevel.ERROR
        _configure(sys.stderr, LogFormat.CONSOLE, level, is_cached=False)
        yield
        return
    with file.open("a", encoding="utf-8") as record:
        _configure(record, LogFormat.JSON, LogLevel.INFO, is_cached=False)
        yield
        # Whatever is logged while the program ends goes the usual way.
        _configure(sys.stderr, LogFormat.CONSOLE, LogLevel.ERROR, is_cached=False)


def _configure(stream: TextIO, format_: LogFormat, level: LogLevel, *, is_cached: bool) -> None:
    number = logging.getLevelNamesMapping()[level.upper()]
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        # Text only: the renderers that draw locals would write payloads and keys.
        structlog.processors.format_exc_info,
    ]
    final = _final_of(format_, has_colors=stream.isatty())
    structlog.configure(
        processors=[*shared, *final],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.PrintLoggerFactory(stream),
        cache_logger_on_first_use=is_cached,
    )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.add_logger_name],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *final],
        )
    )
    logging.basicConfig(handlers=[handler], level=number, force=True)
    for name in _SILENCED:
        logging.getLogger(name).setLevel(logging.NOTSET if level is LogLevel.DEBUG else logging.CRITICAL)


def _final_of(format_: LogFormat, *, has_colors: bool) -> list[Processor]:
    if format_ is LogFormat.JSON:
        return [structlog.processors.JSONRenderer(default=str)]
    return [
        _escape_values,
        structlog.dev.ConsoleRenderer(colors=has_colors, exception_formatter=structlog.dev.plain_traceback),
    ]


def _escape_values(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Make control characters visible: some values come from messages, and a terminal would obey them."""
    for key, value in event.items():
        if isinstance(value, str):
            event[key] = escaped(value, multiline=key == "exception")
        elif not isinstance(value, int | float | bool | None):
            event[key] = escaped(repr(value))
    return event
