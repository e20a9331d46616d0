"""What separates the topology that should exist from the one that does: a plan, in words and in steps. Pure.

Nothing in a plan deletes a queue or an exchange, for a queue holds work. What may be taken away is a binding that no
handler needs any more: its messages still arrive, and wait for nobody.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Final

from messaging.core.topology import Argument, Binding, Exchange, Names, Queue, Topology

__all__ = ["Difference", "Existing", "Plan", "Step", "Todo", "plan_topology"]

TYPE: Final = "type"
# What handlers and policies ask for; the rest of a service's queues exists for reasons of its own.
_OF_HANDLERS: Final = ("commands", "events", "requests", "faults", "retry.")


class Todo(Enum):
    """What a step asks for."""

    CREATE = "create"
    DIFFERS = "differs"
    UNBIND = "unbind"
    LEFT_OVER = "left over"


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One argument that is not as it should be; None: it is not set."""

    argument: str
    wanted: Argument | None
    found: Argument | None

    def __str__(self) -> str:
        return f"{self.argument}: wanted {_shown(self.wanted)}, found {_shown(self.found)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One difference between what should be and what is.

    Attributes:
        todo: What it asks for.
        what: The thing, in words.
        differences: Of DIFFERS: argument by argument.
        thing: The exchange or queue that is missing or differs.
        binding: The one that is missing, or not needed.
    """

    todo: Todo
    what: str
    differences: tuple[Difference, ...] = ()
    thing: Exchange | Queue | None = None
    binding: Binding | None = None

    @property
    def name(self) -> str:
        """The exchange or queue that it is about; of a binding the queue."""
        if self.binding is not None:
            return self.binding.queue
        return "" if self.thing is None else self.thing.name


@dataclass(frozen=True, slots=True, kw_only=True)
class Existing:
    """What is known of the broker.

    Attributes:
        exchanges: Arguments of those that exist, by name; the type is among them as `type`.
        queues: Arguments of those that exist, by name.
        bindings: All bindings, or None when nobody could be asked for them.
    """

    exchanges: Mapping[str, Mapping[str, Argument]]
    queues: Mapping[str, Mapping[str, Argument]]
    bindings: frozenset[Binding] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What would have to happen, in order."""

    steps: tuple[Step, ...]

    @property
    def is_empty(self) -> bool:
        """Whether everything is as it should be."""
        return not self.steps

    def of(self, todo: Todo) -> tuple[Step, ...]:
        """Return the steps of one kind."""
        return tuple(step for step in self.steps if step.todo is todo)


def plan_topology(wanted: Topology, existing: Existing, *, names: Names, services: Iterable[str]) -> Plan:
    """Compare what should exist with what does.

    Args:
        wanted: What the services need.
        existing: What the broker has.
        names: The namespace.
        services: The services that `wanted` is all of: only what is theirs can be left over.
    """
    services = tuple(services)
    prefixes = [names.queue(service, "") for service in services]
    owned = tuple(f"{prefix}{part}" for prefix in prefixes for part in _OF_HANDLERS)
    steps = [_step(one, _exchange(one), existing.exchanges.get(one.name)) for one in wanted.exchanges]
    steps += [_step(one, one.arguments, existing.queues.get(one.name)) for one in wanted.queues]
    found: list[Step] = [step for step in steps if step is not None]
    if existing.bindings is not None:
        levels = tuple(names.delay(service) for service in services)
        found += _bindings(wanted, existing, existing.bindings, owned, levels)
    needed = {queue.name for queue in wanted.queues}
    found += [
        Step(todo=Todo.LEFT_OVER, what=f"queue {name}")
        for name in sorted(existing.queues)
        if name.startswith(owned) and name not in needed
    ]
    return Plan(steps=tuple(found))


def _bindings(
    wanted: Topology,
    existing: Existing,
    bindings: frozenset[Binding],
    owned: tuple[str, ...],
    levels: tuple[str, ...],
) -> list[Step]:
    needed = frozenset(wanted.bindings)
    steps = [
        Step(todo=Todo.CREATE, what=_binding(binding), binding=binding)
        for binding in wanted.bindings
        if binding not in bindings
    ]
    surplus = sorted(bindings - needed, key=lambda binding: (binding.queue, binding.exchange, binding.routing_key))
    steps += [
        Step(todo=Todo.UNBIND, what=_binding(binding), binding=binding)
        for binding in surplus
        # The default exchange binds every queue by its name; nobody can take that away. And delay levels are made on
        # purpose, for others: no handler tells whether somebody needs their ways out.
        if binding.exchange
        and not binding.exchange.startswith(levels)
        and binding.queue.startswith(owned)
        and binding.queue in existing.queues
    ]
    return steps


def _step(thing: Exchange | Queue, wanted: Mapping[str, Argument], found: Mapping[str, Argument] | None) -> Step | None:
    what = f"{'queue' if isinstance(thing, Queue) else 'exchange'} {thing.name}"
    if found is None:
        return Step(todo=Todo.CREATE, what=what, thing=thing)
    differences = tuple(
        Difference(argument=key, wanted=wanted.get(key), found=found.get(key))
        for key in sorted({*wanted, *found})
        if wanted.get(key) != found.get(key)
    )
    return Step(todo=Todo.DIFFERS, what=what, differences=differences, thing=thing) if differences else None


def _exchange(exchange: Exchange) -> dict[str, Argument]:
    return {TYPE: exchange.type, **exchange.arguments}


def _binding(binding: Binding) -> str:
    key = f" by {binding.routing_key}" if binding.routing_key else ""
    return f"binding of queue {binding.queue} to exchange {binding.exchange}{key}"


def _shown(value: Argument | None) -> str:
    return "nothing" if value is None else str(value)
