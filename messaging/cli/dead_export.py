"""Dead letters as lines of JSON, one after the other: for other programs, and for queues of any length."""

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import aclosing, contextmanager
from pathlib import Path
from typing import Final, TextIO

from messaging.cli.dead_find import services_and_selection
from messaging.cli.dead_show import letter_record
from messaging.cli.render import json_line
from messaging.core.dead_letter import Selection
from messaging.operators import Operator

__all__ = ["export_letters", "opened_for"]

# It holds payloads in clear.
_PRIVATE: Final = 0o600


async def export_letters(acting: Operator, arguments: Sequence[str], selection: Selection, file: TextIO) -> int:
    """Write one line for each selected letter, in the order of the queue; returns how many."""
    services, chosen = await services_and_selection(acting, arguments, selection)
    count = 0
    for service in services:
        async with aclosing(acting.dead_letters.each(service, chosen)) as letters:
            async for letter in letters:
                file.write(f"{json_line(letter_record(letter, is_full=True))}\n")
                count += 1
    return count


@contextmanager
def opened_for(output: Path | None) -> Iterator[TextIO]:
    """Lend stdout, or a new file that nobody else may read.

    Raises:
        FileExistsError: there is such a file.
    """
    if output is None:
        yield sys.stdout
        return
    with os.fdopen(os.open(output, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _PRIVATE), "w", encoding="ascii") as file:
        yield file
