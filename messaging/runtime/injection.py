"""What a handler takes beside message and context, found by its annotations; decided once, when it is registered.

    async def place_order(command: PlaceOrder, context: Context, session: AsyncSession) -> None: ...
    async def place_order(command: PlaceOrder, context: Context, rate: Annotated[float, Depends(find_rate)]): ...

A class alone is a resource: the transaction of the run, or what the lifespan yielded. `Depends` names a function that
makes the value: plain, async, or an async generator, which goes on once the handler has ended and sees its failure.
Such a function has parameters of the same kinds, and may take the message and the context too; each is called once for
a delivery, however many ask for it. Parameters with a default are the function's own affair.

Rules: a signature that cannot be satisfied is refused where the handler is registered. A handler that takes nothing
more is called as it is. Nothing is looked up by name while messages run.
"""

import inspect
import sys
import typing
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from types import CoroutineType, SimpleNamespace
from typing import Any, Final, NoReturn

from messaging.core.fault import Fault
from messaging.core.message import Message
from messaging.errors import ConfigurationError
from messaging.runtime.context import Context
from messaging.runtime.middleware import Call

__all__ = ["Depends", "Overrides", "Plan", "check_resources", "plan_of"]

Overrides = Mapping[Callable[..., Any], Callable[..., Any]]

_MESSAGE: Final = 0
_CONTEXT: Final = 1
_GIVEN: Final = 2
_NO_OVERRIDES: Final[Overrides] = {}
_NAMED: Final = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
_POSITIONAL: Final = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
# A number or a text says nothing about which, and a union is no class.
_NO_RESOURCES: Final = ("builtins", "types")
_VARIADIC: Final = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


@dataclass(frozen=True, slots=True)
class Depends:
    """Says which function makes a parameter's value: `Annotated[Rate, Depends(find_rate)]`.

    Args:
        dependency: A function, async function, async generator or class. Plain functions run on the event loop, so
            they must not block.
        use_cache: Whether one call per delivery serves everybody who asks for it.
    """

    dependency: Callable[..., Any]
    use_cache: bool = field(default=True, kw_only=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How a handler is called.

    Attributes:
        call: Takes message and context, finds the rest, and runs the handler. Without a rest, the handler itself.
        resources: Classes that must be among the resources → the parameter that asks first, in words.
        asked: Every function and class that is asked for, as written: what a test may override.
    """

    call: Call
    resources: Mapping[type, str]
    asked: frozenset[Callable[..., Any]]


def plan_of(handler: Callable[..., Any], subject: type, *, overrides: Overrides = _NO_OVERRIDES) -> Plan:
    """Decide how a handler gets what it takes.

    Args:
        handler: The user's async function.
        subject: The class of its first argument.
        overrides: A dependency or a resource's class → the function that takes its place in tests.

    Raises:
        ConfigurationError: a parameter cannot be satisfied; the message names it and the remedy.
    """
    planner = _Planner(handler, subject, overrides)
    arguments = planner.arguments_of_handler()
    call: Call = _injecting(handler, planner.steps, arguments) if arguments else handler
    return Plan(call=call, resources=planner.resources, asked=frozenset(planner.asked))


def check_resources(plans: Sequence[Plan], resources: Sequence[object], *, offered: Sequence[type] = ()) -> None:
    """See to it that every resource that handlers ask for exists.

    Args:
        plans: Of all handlers.
        resources: What the lifespan yielded.
        offered: Classes of what the store's transactions give.

    Raises:
        ConfigurationError: one is missing; the message names the handler, the parameter and the remedy.
    """
    for plan in plans:
        for kind, where in plan.resources.items():
            is_offered = any(issubclass(offer, kind) for offer in offered)
            if not is_offered and not any(isinstance(resource, kind) for resource in resources):
                raise ConfigurationError(
                    f"{where} is a {kind.__name__}, and there is none: yield one from the lifespan, give the service a "
                    f"durable store if it is the session of one, or write Annotated[{kind.__name__}, Depends(…)]"
                )


@dataclass(frozen=True, slots=True)
class _Step:
    """Makes one value out of earlier ones; its own becomes the next."""

    make: Callable[..., Any]
    arguments: tuple[tuple[str, int], ...]
    is_entered: bool = False


class _Planner:
    """Walks through the signatures, dependencies before those that need them."""

    def __init__(self, handler: Callable[..., Any], subject: type, overrides: Overrides) -> None:
        self.steps: list[_Step] = []
        self.resources: dict[type, str] = {}
        self.asked: set[Callable[..., Any]] = set()
        self._handler = handler
        self._subject = subject
        self._overrides = overrides
        # A class may be asked for as a resource and as a function: two values.
        self._places: dict[tuple[bool, Callable[..., Any]], int] = {}
        self._open: list[Callable[..., Any]] = []

    def arguments_of_handler(self) -> tuple[tuple[str, int], ...]:
        """Plan for everything behind message and context; returns parameter → place of its value."""
        parameters = list(inspect.signature(self._handler).parameters.values())
        first, rest = parameters[:_GIVEN], parameters[_GIVEN:]
        if len(first) < _GIVEN or any(parameter.kind not in _POSITIONAL for parameter in first):
            name = _name_of(self._handler)
            raise ConfigurationError(f"{name} must take (message, context), then what else it needs")
        return self._arguments(self._handler, rest)

    def _arguments(
        self, function: Callable[..., Any], parameters: Sequence[inspect.Parameter]
    ) -> tuple[tuple[str, int], ...]:
        found = ((parameter, self._place_of(function, parameter)) for parameter in parameters)
        return tuple((parameter.name, place) for parameter, place in found if place is not None)

    def _place_of(self, function: Callable[..., Any], parameter: inspect.Parameter) -> int | None:
        """Return where the parameter's value will be; None when the function needs none."""
        if parameter.kind in _VARIADIC:
            return None
        annotation, depends = self._wish(function, parameter)
        has_default = parameter.default is not parameter.empty
        if depends is None and has_default:
            return None
        if parameter.kind not in _NAMED:
            self._refuse(function, parameter, "has no name to give it by; remove the `/` behind it")
        if depends is not None:
            return self._dependency(depends)
        return self._resource(function, parameter, annotation)

    def _wish(self, function: Callable[..., Any], parameter: inspect.Parameter) -> tuple[Any, Depends | None]:
        if isinstance(parameter.default, Depends):
            self._refuse(function, parameter, f"write {parameter.name}: Annotated[…, Depends(…)], without a default")
        annotation = self._annotation(function, parameter)
        if typing.get_origin(annotation) is not typing.Annotated:
            return annotation, None
        inner, *extras = typing.get_args(annotation)
        wishes = [extra for extra in extras if isinstance(extra, Depends)]
        if len(wishes) > 1:
            self._refuse(function, parameter, "says Depends twice; leave one")
        return inner, wishes[0] if wishes else None

    def _annotation(self, function: Callable[..., Any], parameter: inspect.Parameter) -> Any:
        annotation = parameter.annotation
        if not isinstance(annotation, str):
            return annotation
        # Only this one: a return type or another parameter may name what exists for type checkers alone.
        alone = SimpleNamespace(__annotations__={parameter.name: annotation})
        try:
            hints = typing.get_type_hints(alone, globalns=_globals_of(function), include_extras=True)
        except (NameError, AttributeError, TypeError, SyntaxError) as error:
            if parameter.default is not parameter.empty and Depends.__name__ not in annotation:
                return annotation
            self._refuse(
                function,
                parameter,
                f"{annotation!r} cannot be read here ({error}): import it at the module's top",
                error,
            )
        return hints[parameter.name]

    def _dependency(self, depends: Depends) -> int:
        self.asked.add(depends.dependency)
        known = self._places.get((False, depends.dependency)) if depends.use_cache else None
        if known is not None:
            return known
        return self._made((False, depends.dependency), self._overrides.get(depends.dependency, depends.dependency))

    def _made(self, wanted: tuple[bool, Callable[..., Any]], maker: Callable[..., Any]) -> int:
        name = _name_of(self._handler)
        if not callable(maker):
            raise ConfigurationError(f"{name}: Depends({maker!r}) names nothing that can be called")
        if maker in self._open:
            raise ConfigurationError(f"{name}: the dependency {_name_of(maker)} needs itself")
        if _is_generator(maker, inspect.isgeneratorfunction):
            raise ConfigurationError(f"{name}: the dependency {_name_of(maker)} yields; write `async def` before it")
        self._open.append(maker)
        arguments = self._arguments(maker, _parameters_of(maker, name))
        self._open.pop()
        is_entered = _is_generator(maker, inspect.isasyncgenfunction)
        make = asynccontextmanager(maker) if is_entered else maker
        return self._add(wanted, _Step(make, arguments, is_entered))

    def _resource(self, function: Callable[..., Any], parameter: inspect.Parameter, annotation: Any) -> int:
        if annotation is parameter.empty:
            self._refuse(function, parameter, "has no annotation: write its class, or Annotated[…, Depends(…)]")
        # Of async_sessionmaker[AsyncSession] the class without its argument: nothing else can be told at run time.
        kind = typing.get_origin(annotation) or annotation
        given = self._given(function, parameter, kind)
        if given is not None:
            return given
        if not isinstance(kind, type) or kind.__module__ in _NO_RESOURCES:
            shown = getattr(annotation, "__name__", annotation)
            self._refuse(
                function, parameter, f"{shown} does not say which: write Annotated[{shown}, Depends(…)], or a class"
            )
        if getattr(kind, "_is_protocol", False) and not getattr(kind, "_is_runtime_protocol", False):
            self._refuse(function, parameter, f"nothing can be recognised as {kind.__name__}: add @runtime_checkable")
        self.asked.add(kind)
        known = self._places.get((True, kind))
        if known is not None:
            return known
        override = self._overrides.get(kind)
        if override is not None:
            return self._made((True, kind), override)
        self.resources[kind] = f"{_name_of(self._handler)}: parameter {parameter.name!r}{_of(function, self._handler)}"
        return self._add((True, kind), _Step(_finder_of(kind), (("context", _CONTEXT),)))

    def _given(self, function: Callable[..., Any], parameter: inspect.Parameter, kind: Any) -> int | None:
        if kind is Context:
            return _CONTEXT
        if not isinstance(kind, type) or not issubclass(kind, Message | Fault):
            return None
        if not issubclass(self._subject, kind):
            self._refuse(function, parameter, f"is a {kind.__name__}, but a {self._subject.__name__} is handled here")
        return _MESSAGE

    def _add(self, wanted: tuple[bool, Callable[..., Any]], step: _Step) -> int:
        self.steps.append(step)
        place = _GIVEN + len(self.steps) - 1
        self._places.setdefault(wanted, place)
        return place

    def _refuse(
        self,
        function: Callable[..., Any],
        parameter: inspect.Parameter,
        remedy: str,
        cause: Exception | None = None,
    ) -> NoReturn:
        where = f"{_name_of(self._handler)}: parameter {parameter.name!r}{_of(function, self._handler)}"
        raise ConfigurationError(f"{where}: {remedy}") from cause


def _injecting(handler: Callable[..., Any], steps: Sequence[_Step], arguments: Sequence[tuple[str, int]]) -> Call:
    async def call(message: Any, context: Context) -> Any:
        values = await _values(steps, message, context)
        return await handler(message, context, **{name: values[place] for name, place in arguments})

    async def call_and_close(message: Any, context: Context) -> Any:
        failure: BaseException | None = None
        result: Any = None
        async with AsyncExitStack() as stack:
            try:
                values = await _values(steps, message, context, stack)
                result = await handler(message, context, **{name: values[place] for name, place in arguments})
            except BaseException as error:
                failure = error
                raise
        # A generator may look at a failure, but not make it undone: the message would count as handled.
        if failure is not None:
            raise failure
        return result

    return call_and_close if any(step.is_entered for step in steps) else call


async def _values(
    steps: Sequence[_Step], message: Any, context: Context, stack: AsyncExitStack | None = None
) -> Sequence[Any]:
    values = [message, context]
    for step in steps:
        made = step.make(**{name: values[place] for name, place in step.arguments})
        if step.is_entered and stack is not None:
            made = await stack.enter_async_context(made)
        elif isinstance(made, CoroutineType):
            made = await made
        values.append(made)
    return values


def _finder_of(kind: type) -> Callable[..., Any]:
    def find(context: Context) -> Any:
        return context.resource(kind)

    return find


def _parameters_of(maker: Callable[..., Any], handler: str) -> Sequence[inspect.Parameter]:
    try:
        return tuple(inspect.signature(maker).parameters.values())
    except (TypeError, ValueError) as error:
        raise ConfigurationError(
            f"{handler}: the parameters of {_name_of(maker)} cannot be read; put a function around it"
        ) from error


def _is_generator(maker: Callable[..., Any], is_one: Callable[[Any], bool]) -> bool:
    return is_one(maker) or is_one(getattr(maker, "__call__", None))  # noqa: B004 - of objects, their method


def _globals_of(function: Callable[..., Any]) -> dict[str, Any]:
    plain = inspect.unwrap(function)
    plain = getattr(plain, "func", plain)
    module = sys.modules.get(getattr(plain, "__module__", "") or type(plain).__module__)
    return {} if module is None else vars(module)


def _name_of(function: Callable[..., Any]) -> str:
    return getattr(function, "__qualname__", None) or repr(function)


def _of(function: Callable[..., Any], handler: Callable[..., Any]) -> str:
    return "" if function is handler else f" of {_name_of(function)}"
