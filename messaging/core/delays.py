"""Delay levels: twenty queues through which a command reaches its service after any number of seconds.

Level n holds what passes for 2^n seconds. The routing key says which levels that are, the longest first, as twenty
bits, and then the word of the queue at the end, which has no dot:

    0.0. … .0.1.0.1.commands        through level 2 (4 s) and level 0 (1 s), then into the service's commands

Each level's queue dead-letters into the exchange of the same name, which looks at the bits below. So every exchange
is bound to each level below it, and to the end, by patterns that ignore what is done. What fits none of them goes
to the dead letters of the service. The sender needs a right to the entry alone, and no program has to run meanwhile.
"""

from typing import Final

from messaging.core.topology import DELIVERY_LIMIT, Argument, Binding, Exchange, Names, Queue, Topology
from messaging.errors import ConfigurationError

__all__ = ["ANY_DELAY_KEY", "DELAY_MAX_S", "LEVELS", "delay_end", "delay_key", "delay_topology"]

LEVELS: Final = 20
DELAY_MAX_S: Final = 2**LEVELS - 1
# The only queue that anything may be delayed into: events have many receivers, and requests an impatient one.
_WORD: Final = "commands"

# As a regular expression, for the rights of senders.
ANY_DELAY_KEY: Final = rf"(?:[01]\.){{{LEVELS}}}{_WORD}"


def delay_key(delay_s: int) -> str:
    """Return the routing key that takes a command through its levels.

    Args:
        delay_s: Whole seconds, 0 to 2^20 - 1.

    Raises:
        ConfigurationError: the levels do not reach that far.
    """
    if not 0 <= delay_s <= DELAY_MAX_S:
        raise ConfigurationError(
            f"a delay of {delay_s} s is beyond the delay levels, which reach {DELAY_MAX_S} s (12 days): give the "
            "service a store, Service(…, store=SqlStore(engine)), whose schedules reach ten years"
        )
    return ".".join([*f"{delay_s:0{LEVELS}b}", _WORD])


def delay_end(names: Names, service: str) -> str:
    """Return the queue that delayed commands for a service come out in."""
    return names.queue(service, _WORD)


def delay_topology(names: Names, service: str) -> Topology:
    """Return the levels of a service that handles commands; its other topology must exist.

    Args:
        names: The namespace.
        service: The service that delayed commands are for.
    """
    end = delay_end(names, service)
    # None is the entry, which looks at all bits.
    stages: tuple[int | None, ...] = (None, *reversed(range(LEVELS)))
    bindings: list[Binding] = []
    for stage in stages:
        exchange = names.delay(service, stage)
        below = LEVELS if stage is None else stage
        bindings += [
            Binding(exchange=exchange, queue=names.delay(service, level), routing_key=_pattern(below, level))
            for level in range(below)
        ]
        bindings.append(Binding(exchange=exchange, queue=end, routing_key=_pattern(below, None)))
    return Topology(
        exchanges=tuple(
            Exchange(name=names.delay(service, stage), type="topic", alternate=names.undeliverable_exchange(service))
            for stage in stages
        ),
        queues=tuple(
            Queue(name=names.delay(service, level), arguments=_arguments(names, service, level))
            for level in range(LEVELS)
        ),
        bindings=tuple(bindings),
    )


def _pattern(below: int, level: int | None) -> str:
    """Return what a stage that looks at so many bits sends to one level, or to the end when none of them is set."""
    done = ["*"] * (LEVELS - below)
    if level is None:
        return ".".join([*done, *"0" * below, _WORD])
    return ".".join([*done, *"0" * (below - level - 1), "1", "#"])


def _arguments(names: Names, service: str, level: int) -> dict[str, Argument]:
    return {
        "x-queue-type": "quorum",
        "x-message-ttl": 1_000 << level,
        # No dead-letter routing key: the bits below are still needed.
        "x-dead-letter-exchange": names.delay(service, level),
        "x-dead-letter-strategy": "at-least-once",
        "x-overflow": "reject-publish",
        "x-delivery-limit": DELIVERY_LIMIT,
    }
