"""`BoundedCache`: what was proven lately, bounded in all and per owner, so that one sender cannot push out the rest.

Successes only; a key names everything that the proof depended on, the trust bundle's generation included.
"""

from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

__all__ = ["BoundedCache"]

_Value = TypeVar("_Value")


class BoundedCache(Generic[_Value]):
    """Least recently used goes first; an entry dies of age whatever its use.

    Args:
        total: Most entries in all.
        per_owner: Most entries of one owner.
        life_s: Seconds until an entry is too old.
    """

    __slots__ = ("_entries", "_life_s", "_newest", "_owners", "_per_owner", "_total")

    def __init__(self, *, total: int, per_owner: int, life_s: float) -> None:
        self._total = total
        self._per_owner = per_owner
        self._life_s = life_s
        self._entries: OrderedDict[Hashable, tuple[str, _Value, float]] = OrderedDict()
        self._owners: dict[str, OrderedDict[Hashable, None]] = {}
        # The entry used last, which is the last one in both orders: asked for again, it need not be moved.
        self._newest: tuple[Hashable, tuple[str, _Value, float]] | None = None

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: Hashable, *, now_s: float) -> _Value | None:
        """Return the value if it is there and young enough."""
        if self._newest is not None and key == self._newest[0]:
            entry = self._newest[1]
        else:
            found = self._entries.get(key)
            if found is None:
                return None
            entry = found
            self._entries.move_to_end(key)
            self._owners[entry[0]].move_to_end(key)
            self._newest = key, entry
        if now_s - entry[2] >= self._life_s:
            self._drop(key)
            return None
        return entry[1]

    def put(self, key: Hashable, value: _Value, *, owner: str, now_s: float) -> None:
        """Keep a value; what is too much goes, the owner's own oldest first."""
        if key in self._entries:
            self._drop(key)
        own = self._owners.setdefault(owner, OrderedDict())
        if len(own) >= self._per_owner:
            self._drop(next(iter(own)))
        elif len(self._entries) >= self._total:
            self._drop(next(iter(self._entries)))
        self._owners.setdefault(owner, own)[key] = None
        entry = self._entries[key] = (owner, value, now_s)
        self._newest = key, entry

    def _drop(self, key: Hashable) -> None:
        if self._newest is not None and key == self._newest[0]:
            self._newest = None
        owner, _, _ = self._entries.pop(key)
        own = self._owners[owner]
        del own[key]
        if not own:
            del self._owners[owner]
