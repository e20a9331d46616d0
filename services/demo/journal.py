"""Logs of the demo: this process writes its own to a file, and the story reads from the services' what happened."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import structlog

__all__ = ["journal_file", "keep_journal", "log_lines"]

_POLL_S: Final = 0.05


def journal_file(folder: Path) -> Path:
    """Return the file with this process's own log."""
    return folder / "logs" / "demo.log"


@contextmanager
def keep_journal(folder: Path) -> Iterator[None]:
    """Write this process's log to its file for the time of the block, one JSON object per line.

    What libraries log goes to a file beside it: nothing but the story belongs on the terminal.
    """
    file = journal_file(folder)
    file.parent.mkdir(parents=True, exist_ok=True)
    libraries = logging.FileHandler(file.with_name("libraries.log"))
    logging.basicConfig(handlers=[libraries], level=logging.INFO, force=True)
    # Line by line, because the story reads it while it is written.
    with file.open("a", buffering=1) as stream:
        structlog.configure(
            processors=[
                structlog.contextvars.merge_contextvars,
                structlog.processors.add_log_level,
                structlog.processors.TimeStamper(fmt="iso", utc=True),
                structlog.processors.format_exc_info,
                structlog.processors.JSONRenderer(default=str),
            ],
            logger_factory=structlog.WriteLoggerFactory(file=stream),
        )
        try:
            yield
        finally:
            structlog.reset_defaults()
            logging.getLogger().removeHandler(libraries)
            libraries.close()


async def log_lines(file: Path, *, message_id: str) -> AsyncIterator[dict[str, Any]]:
    """Yield the lines of a log about one message, those to come included; ends only with its reader."""
    with file.open() as stream:
        partial = ""
        while True:
            partial += stream.readline()
            if not partial.endswith("\n"):
                await asyncio.sleep(_POLL_S)
                continue
            line = _parsed(partial)
            partial = ""
            if line.get("message_id") == message_id:
                yield line


def _parsed(line: str) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
