"""`Router`: which function handles which message; refuses a second handler, reports what topology needs.

Four decorators mirror four acts: `on_command`/`send`, `on_event`/`publish`, `on_request`/`request`, `on_fault`/`raise`.
The message class is passed, so a type checker matches handler and message.
"""

import inspect
import math
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Any, Concatenate, Final, Generic, ParamSpec, Self, TypeVar

from messaging.core.envelope import Kind
from messaging.core.fault import Fault
from messaging.core.message import Command, Event, Message, Request, contract_of
from messaging.core.names import type_of
from messaging.core.retry import RetryPolicy
from messaging.core.topology import Subscriptions
from messaging.errors import ConfigurationError, UnknownMessageError
from messaging.runtime.context import Context
from messaging.runtime.injection import Overrides, Plan, plan_of
from messaging.runtime.middleware import Call
from messaging.stores.base import Grouping

__all__ = ["Handler", "Router"]

C = TypeVar("C", bound=Command)
E = TypeVar("E", bound=Event)
Q_co = TypeVar("Q_co", covariant=True)
R = TypeVar("R")
P = ParamSpec("P")

# A first rung always exists: deliveries that must wait without blame (a live lease, a lagging trust bundle) use it.
FIRST_RUNG_MS: Final = 1_000
# How long the first delivery of a group waits for others: about what a commit takes on a disk.
GROUP_WAIT_S: Final = 0.01
GROUP_WAIT_MAX_S: Final = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Handler:
    """One handler.

    Attributes:
        call: The user's function.
        plan: How it gets what it takes beside message and context.
        model: The message class.
        kind: Command, event, request, or fault for `on_fault`.
        retry: Its policy; None takes the service's.
        timeout_s: Its deadline; None takes the service's.
        grouping: How its deliveries share transactions; None: each has its own.
    """

    call: Callable[..., Any]
    plan: Plan
    model: type[Message]
    kind: Kind
    retry: RetryPolicy | None = None
    timeout_s: float | None = None
    grouping: Grouping | None = None

    @property
    def name(self) -> str:
        """Qualified name of the function, for faults and logs."""
        return f"{self.call.__module__}.{getattr(self.call, '__qualname__', repr(self.call))}"

    @property
    def is_keyed(self) -> bool:
        """Whether it handles commands that have a key."""
        return self.kind is Kind.COMMAND and contract_of(self.model).key is not None

    @property
    def key(self) -> tuple[Kind, str, int]:
        """What it handles."""
        contract = contract_of(self.model)
        return self.kind, contract.name, contract.version

    def overridden(self, overrides: Overrides) -> Plan:
        """Return the plan with other dependencies in the place of some; see `plan_of`."""
        return plan_of(self.call, _subject_of(self.model, self.kind), overrides=overrides) if overrides else self.plan


class OnRequest(Generic[Q_co]):
    """The decorator of a request: the handler must return what the request promises."""

    def __init__(self, add: Callable[[Call], None]) -> None:
        self._add = add

    def __call__(
        self: "OnRequest[Request[R]]", handler: Callable[Concatenate[Q_co, Context, P], Awaitable[R]]
    ) -> Callable[Concatenate[Q_co, Context, P], Awaitable[R]]:
        """Register the handler and return it unchanged."""
        self._add(handler)
        return handler


class Router:
    """Collects handlers; a `Service` is one, and `service.include(router)` takes another's."""

    def __init__(self) -> None:
        self._handlers: dict[tuple[Kind, str, int], Handler] = {}

    def on_command(
        self,
        message: type[C],
        *,
        retry: RetryPolicy | None = None,
        timeout: float | None = None,
        group: int | None = None,
        group_wait: float = GROUP_WAIT_S,
    ) -> Callable[
        [Callable[Concatenate[C, Context, P], Awaitable[None]]], Callable[Concatenate[C, Context, P], Awaitable[None]]
    ]:
        """Handle a command that this service owns; replicas compete for the work.

        Args:
            message: The command class.
            retry: How often and how late a failure is tried again; default: the service's policy.
            timeout: Seconds that one run may take; default: `handler_timeout_s` of the settings.
            group: With a durable store: up to so many deliveries share a transaction (docs/stores.md, "Groups").
            group_wait: Seconds that the first of a group waits for others.

        Raises:
            ConfigurationError: the class is abstract or of another kind, or the message has a handler already.
        """
        return self._decorator(message, Kind.COMMAND, retry=retry, timeout=timeout, group=(group, group_wait))

    def on_event(
        self,
        message: type[E],
        *,
        retry: RetryPolicy | None = None,
        timeout: float | None = None,
        group: int | None = None,
        group_wait: float = GROUP_WAIT_S,
    ) -> Callable[
        [Callable[Concatenate[E, Context, P], Awaitable[None]]], Callable[Concatenate[E, Context, P], Awaitable[None]]
    ]:
        """Handle an event; every subscribing service gets its own copy, its replicas compete for it."""
        return self._decorator(message, Kind.EVENT, retry=retry, timeout=timeout, group=(group, group_wait))

    def on_request(self, message: type[Q_co], *, timeout: float | None = None) -> OnRequest[Q_co]:
        """Answer a request that this service owns. A failure answers the caller at once: there is no retry."""
        _check_model(message, Kind.REQUEST)

        def add(handler: Call) -> None:
            self._register(message, handler, Kind.REQUEST, retry=None, timeout=timeout)

        return OnRequest(add)

    def on_fault(
        self, message: type[C]
    ) -> Callable[
        [Callable[Concatenate[Fault, Context, P], Awaitable[None]]],
        Callable[Concatenate[Fault, Context, P], Awaitable[None]],
    ]:
        """Hear of a command of ours that failed over there and was buried; `context.message_id` is the command's."""
        _check_model(message, Kind.FAULT)

        def decorate(
            handler: Callable[Concatenate[Fault, Context, P], Awaitable[None]],
        ) -> Callable[Concatenate[Fault, Context, P], Awaitable[None]]:
            self._register(message, handler, Kind.FAULT, retry=None, timeout=None)
            return handler

        return decorate

    def include(self, router: "Router") -> Self:
        """Take over the handlers of another router; returns self.

        Raises:
            ConfigurationError: both handle the same message.
        """
        for handler in router.handlers:
            self._put(handler)
        return self

    @property
    def handlers(self) -> Iterator[Handler]:
        """All handlers, in the order of registration."""
        return iter(self._handlers.values())

    def find(self, kind: Kind, name: str, version: int) -> Handler | None:
        """Return the handler of a message, or None when there is none in this replica."""
        return self._handlers.get((kind, name, version))

    def resolve(self, kind: Kind, name: str, version: int) -> Handler:
        """Return the handler of a message.

        Raises:
            UnknownMessageError: there is none in this replica.
        """
        handler = self.find(kind, name, version)
        if handler is None:
            raise UnknownMessageError(f"no handler for {kind.word} {type_of(name, version)} in this replica")
        return handler

    def subscriptions_with(self, default: RetryPolicy) -> Subscriptions:
        """Return what topology and trust need to know, with the rungs that the policies use."""
        by_kind: dict[Kind, set[tuple[str, int]]] = {kind: set() for kind in Kind}
        # What finds no handler here waits on the rungs of the default.
        rungs = {FIRST_RUNG_MS, *default.rungs_ms}
        keyed: set[tuple[str, int]] = set()
        for handler in self.handlers:
            _, name, version = handler.key
            by_kind[handler.kind].add((name, version))
            if handler.is_keyed:
                keyed.add((name, version))
            rungs.update(() if handler.retry is None else handler.retry.rungs_ms)
        return Subscriptions(
            commands=frozenset(by_kind[Kind.COMMAND]),
            requests=frozenset(by_kind[Kind.REQUEST]),
            events=frozenset(by_kind[Kind.EVENT]),
            faults=bool(by_kind[Kind.FAULT]),
            rungs_ms=tuple(sorted(rungs)) if self._handlers else (),
            keyed=frozenset(keyed),
        )

    def _decorator(
        self,
        message: type[Message],
        kind: Kind,
        *,
        retry: RetryPolicy | None,
        timeout: float | None,
        group: tuple[int | None, float],
    ) -> Callable[[Callable[..., Awaitable[None]]], Callable[..., Awaitable[None]]]:
        _check_model(message, kind)

        def decorate(handler: Callable[..., Awaitable[None]]) -> Callable[..., Awaitable[None]]:
            self._register(message, handler, kind, retry=retry, timeout=timeout, group=group)
            return handler

        return decorate

    def _register(
        self,
        message: Any,
        handler: Callable[..., Any],
        kind: Kind,
        *,
        retry: RetryPolicy | None,
        timeout: float | None,
        group: tuple[int | None, float] = (None, GROUP_WAIT_S),
    ) -> None:
        if not inspect.iscoroutinefunction(handler):
            name = getattr(handler, "__qualname__", repr(handler))
            raise ConfigurationError(f"{name} must be an async function: async def {name}(message, context)")
        if timeout is not None and not 0 < timeout < math.inf:
            raise ConfigurationError(f"{handler.__qualname__}: timeout={timeout} must be above 0 seconds, and finite")
        plan = plan_of(handler, _subject_of(message, kind))
        grouping = _grouping_of(handler, *group)
        self._put(
            Handler(
                call=handler, plan=plan, model=message, kind=kind, retry=retry, timeout_s=timeout, grouping=grouping
            )
        )

    def _put(self, handler: Handler) -> None:
        taken = self._handlers.get(handler.key)
        if taken is not None:
            kind, name, version = handler.key
            raise ConfigurationError(
                f"{kind.word} {type_of(name, version)} has a handler already, {taken.name}; "
                f"{handler.name} would be a second"
            )
        self._handlers[handler.key] = handler


def _check_model(message: Any, kind: Kind) -> None:
    # Before the handler is seen: `@orders.on_command` without a class would else take the handler for one, and
    # register nothing without a word.
    wanted = Kind.COMMAND if kind is Kind.FAULT else kind
    if not (isinstance(message, type) and issubclass(message, Message)) or contract_of(message).kind is not wanted:
        raise ConfigurationError(f"on_{kind.word} takes a {wanted.word.title()} class, not {message!r}")


def _grouping_of(handler: Callable[..., Any], size: int | None, wait_s: float) -> Grouping | None:
    if size is None:
        return None
    name = f"{handler.__module__}.{handler.__qualname__}"
    if size <= 1 or not 0 < wait_s <= GROUP_WAIT_MAX_S:
        raise ConfigurationError(
            f"{name}: group={size}, group_wait={wait_s}: a group has at least 2 deliveries, and its first waits for "
            f"more than 0 and at most {GROUP_WAIT_MAX_S:g} seconds"
        )
    return Grouping(name=name, size=size, wait_s=wait_s)


def _subject_of(model: type[Message], kind: Kind) -> type:
    return Fault if kind is Kind.FAULT else model
