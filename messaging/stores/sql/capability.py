"""Whether the short ways to the drivers may be taken: they lead through what SQLAlchemy and aiosqlite keep private.

With versions that they were not tested with, everything goes through SQLAlchemy's public interface instead: the same
rows in the same transactions, for more CPU time.
"""

from functools import cache
from importlib.metadata import version
from typing import Final

import structlog

__all__ = ["has_short_ways"]

_TESTED: Final = {"sqlalchemy": ((2, 1), (2, 2)), "aiosqlite": ((0, 22), (0, 23))}

log = structlog.get_logger()


@cache
def has_short_ways() -> bool:
    """Return whether the installed versions are those that the short ways were tested with; says once if not."""
    for package, (first, beyond) in _TESTED.items():
        found = version(package)
        numbers = tuple(int(part) for part in found.split(".")[:2] if part.isdigit())
        if not first <= numbers < beyond:
            wanted = f"{package}>={_dotted(first)},<{_dotted(beyond)}"
            log.warning(
                "store.detour", reason=f"{package} {found} is not one that was tested", remedy=f"install {wanted}"
            )
            return False
    return True


def _dotted(numbers: tuple[int, ...]) -> str:
    return ".".join(map(str, numbers))
