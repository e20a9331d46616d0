"""`SourceWatch`: notices that a Python file changed, for `messaging run --reload`. Polls; development only."""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

__all__ = ["SourceWatch"]

# Folders that hold no source of the user's, or too much of others'.
_SKIPPED: Final = frozenset({"__pycache__", "node_modules", "site-packages"})


class SourceWatch:
    """Remembers when the Python files below a folder changed last."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._seen = self._stamps()

    def changed(self) -> Path | None:
        """Return a file that was changed, added or removed since the last question, or None."""
        before, self._seen = self._seen, self._stamps()
        if before == self._seen:
            return None
        return next(path for path in {**before, **self._seen} if before.get(path) != self._seen.get(path))

    def _stamps(self) -> dict[Path, int]:
        stamps: dict[Path, int] = {}
        for path in _sources(self._folder):
            try:
                stamps[path] = path.stat().st_mtime_ns
            except OSError:
                # Gone between the listing and the look: the next question tells.
                continue
        return stamps


def _sources(folder: Path) -> Iterator[Path]:
    try:
        entries = list(folder.iterdir())
    except OSError:
        return
    for entry in entries:
        if entry.name.startswith(".") or entry.name in _SKIPPED:
            continue
        if entry.is_dir() and not entry.is_symlink():
            yield from _sources(entry)
        elif entry.suffix == ".py":
            yield entry
