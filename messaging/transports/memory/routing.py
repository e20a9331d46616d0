"""Exchanges of the memory broker: which queues a routing key reaches, as RabbitMQ decides it.

Rules: a topic pattern matches by words between dots, `*` stands for exactly one word and `#` for any number of them; a
direct exchange compares the whole key; a fan-out ignores it. A queue that several bindings reach is reached once. What
reaches no queue goes to the alternate exchange, when there is one, under the same key.
"""

from functools import lru_cache
from typing import Final

from messaging.core.topology import Exchange

__all__ = ["MemoryExchange", "topic_matches"]

# Keys come from messages: the table of remembered answers must not grow with hostile ones.
_REMEMBERED_KEYS_MAX: Final = 4_096


class MemoryExchange:
    """An exchange and its bindings.

    Args:
        declared: What it was declared as.
    """

    def __init__(self, declared: Exchange) -> None:
        self.declared = declared
        self._bindings: dict[tuple[str, str], None] = {}
        self._remembered: dict[str, tuple[str, ...]] = {}

    def bind(self, queue: str, pattern: str) -> None:
        """Make keys that match the pattern reach the queue. Twice is once."""
        self._bindings[(queue, pattern)] = None
        self._remembered.clear()

    def unbind(self, queue: str, pattern: str) -> None:
        """Remove one binding, if it is there."""
        self._bindings.pop((queue, pattern), None)
        self._remembered.clear()

    def forget(self, queue: str) -> None:
        """Remove every binding of a queue that is gone."""
        self._bindings = {binding: None for binding in self._bindings if binding[0] != queue}
        self._remembered.clear()

    def reached_by(self, routing_key: str) -> tuple[str, ...]:
        """Return the names of the queues that the key reaches, each once, in the order of their binding."""
        found = self._remembered.get(routing_key)
        if found is None:
            found = tuple(
                dict.fromkeys(queue for queue, pattern in self._bindings if self._is_for(pattern, routing_key))
            )
            if len(self._remembered) >= _REMEMBERED_KEYS_MAX:
                self._remembered.clear()
            self._remembered[routing_key] = found
        return found

    def _is_for(self, pattern: str, routing_key: str) -> bool:
        match self.declared.type:
            case "fanout":
                return True
            case "direct":
                return pattern == routing_key
            case "topic":
                return topic_matches(pattern, routing_key)


def topic_matches(pattern: str, routing_key: str) -> bool:
    """Tell whether a topic exchange puts the key through a binding of this pattern."""
    return _matches(_words(pattern), _words(routing_key))


def _words(text: str) -> tuple[str, ...]:
    # The broker counts no word in an empty key, but an empty one between two dots.
    return tuple(text.split(".")) if text else ()


@lru_cache(maxsize=1_024)
def _compiled(pattern: tuple[str, ...]) -> tuple[str, ...]:
    """Return the pattern with runs of `#` as one: they mean the same and would only be tried again and again."""
    return tuple(word for n, word in enumerate(pattern) if word != "#" or n == 0 or pattern[n - 1] != "#")


def _matches(pattern: tuple[str, ...], words: tuple[str, ...]) -> bool:
    """Walk the words once, keeping every place of the pattern that is still possible: linear, whatever the pattern."""
    pattern = _compiled(pattern)
    places = _opened({0}, pattern)
    for word in words:
        places = _opened(
            {
                place if pattern[place] == "#" else place + 1
                for place in places
                if place < len(pattern) and pattern[place] in {"#", "*", word}
            },
            pattern,
        )
        if not places:
            return False
    return len(pattern) in places


def _opened(places: set[int], pattern: tuple[str, ...]) -> set[int]:
    """Add the places behind a `#`, which may stand for nothing."""
    return places | {place + 1 for place in places if place < len(pattern) and pattern[place] == "#"}
