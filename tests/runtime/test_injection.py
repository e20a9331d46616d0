"""What handlers get by annotation: resources, dependencies, their order and end; and what is refused."""

import functools
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Annotated, Any, Protocol, cast
from uuid import UUID

import pytest

from messaging import ConfigurationError, Context, Depends, Fault
from messaging.core.envelope import Envelope, Kind
from messaging.core.message import Message
from messaging.runtime.context import Outlet
from messaging.runtime.injection import check_resources, plan_of
from tests.support.shop import CancelOrder, PlaceOrder


class Depot:
    pass


class BigDepot(Depot):
    pass


class Unread(Protocol):
    def read(self) -> None: ...


class Late:
    def __init__(self, depot: Depot) -> None:
        self.depot = depot


def context_with(*resources: object) -> Context:
    envelope = Envelope(
        id=UUID(int=7),
        kind=Kind.COMMAND,
        name="orders.place_order",
        version=1,
        sender="users",
        audience="orders",
        issued_at_ms=0,
        expires_at_ms=1,
        payload=b"",
    )
    return Context(envelope, cast("Outlet", None), resources=resources)


async def run(handler: Callable[..., Any], *resources: object, subject: type = PlaceOrder, **named: Any) -> Any:
    return await plan_of(handler, subject, **named).call(PlaceOrder(number=3), context_with(*resources))


# ---- what is found


def test_a_handler_that_takes_nothing_more_is_called_as_it_is() -> None:
    async def handler(message: PlaceOrder, context: Context, size: int = 3, *rest: int, **named: int) -> None: ...

    assert plan_of(handler, PlaceOrder).call is handler


async def test_a_class_is_a_resource_of_that_type_or_a_subclass() -> None:
    async def handler(message: PlaceOrder, context: Context, depot: Depot, *, again: Depot) -> Any:
        return depot, again

    big = BigDepot()

    assert await run(handler, "other", big) == (big, big)


async def test_other_marks_of_annotated_change_nothing() -> None:
    async def handler(message: PlaceOrder, context: Context, depot: Annotated[Depot, "the near one"]) -> Any:
        return depot

    assert isinstance(await run(handler, Depot()), Depot)


async def test_dependencies_are_plain_async_a_class_or_an_object() -> None:
    class Caller:
        async def __call__(self, message: PlaceOrder) -> int:
            return message.number

    def plain() -> str:
        return "plain"

    async def later(depot: Depot) -> Depot:
        return depot

    async def handler(
        message: PlaceOrder,
        context: Context,
        one: Annotated[str, Depends(plain)],
        two: Annotated[Depot, Depends(later)],
        three: Annotated[Late, Depends(Late)],
        four: Annotated[int, Depends(Caller())],
        five: Annotated[str, Depends(functools.partial(plain))],
    ) -> Any:
        return one, two, three.depot, four, five

    depot = Depot()

    assert await run(handler, depot) == ("plain", depot, depot, 3, "plain")


async def test_dependencies_take_message_context_and_one_another() -> None:
    def number(message: PlaceOrder, any_message: Message) -> int:
        return message.number if any_message is message else 0

    async def label(number: Annotated[int, Depends(number)], context: Context, end: str = "!") -> str:
        return f"{context.sender} {number}{end}"

    async def handler(message: PlaceOrder, context: Context, label: Annotated[str, Depends(label)]) -> str:
        return label

    assert await run(handler) == "users 3!"


async def test_one_call_per_delivery_serves_all_unless_told_otherwise() -> None:
    calls: list[str] = []

    def counted() -> int:
        calls.append("")
        return len(calls)

    def nested(first: Annotated[int, Depends(counted)]) -> int:
        return first

    async def handler(
        message: PlaceOrder,
        context: Context,
        first: Annotated[int, Depends(counted)],
        second: Annotated[int, Depends(nested)],
        third: Annotated[int, Depends(counted, use_cache=False)],
    ) -> Any:
        return first, second, third

    assert await run(handler) == (1, 1, 2)
    assert await run(handler) == (3, 3, 4)


async def test_a_class_may_be_both_resource_and_dependency() -> None:
    async def handler(
        message: PlaceOrder, context: Context, mine: Annotated[Depot, Depends(Depot)], theirs: Depot
    ) -> Any:
        return mine, theirs

    depot = Depot()

    mine, theirs = await run(handler, depot)

    assert theirs is depot
    assert mine is not depot


async def test_on_fault_gives_the_fault() -> None:
    def reason(fault: Fault) -> str:
        return fault.reason

    async def handler(fault: Fault, context: Context, reason: Annotated[str, Depends(reason)]) -> str:
        return reason

    fault = Fault.of(ValueError("closed"))

    assert await plan_of(handler, Fault).call(fault, context_with()) == "closed"


# ---- generators


async def test_a_generator_goes_on_after_the_handler_the_inner_one_first() -> None:
    seen: list[str] = []

    async def outer() -> AsyncIterator[str]:
        yield "outer"
        seen.append("outer closed")

    async def inner(outer: Annotated[str, Depends(outer)]) -> AsyncIterator[str]:
        yield f"inner of {outer}"
        seen.append("inner closed")

    async def handler(message: PlaceOrder, context: Context, inner: Annotated[str, Depends(inner)]) -> str:
        seen.append(inner)
        return "result"

    assert await run(handler) == "result"
    assert seen == ["inner of outer", "inner closed", "outer closed"]


async def test_a_generator_sees_the_failure_and_cannot_undo_it() -> None:
    seen: list[BaseException] = []

    async def swallowing() -> AsyncIterator[None]:
        try:
            yield
        except ValueError as error:
            seen.append(error)

    async def handler(message: PlaceOrder, context: Context, it: Annotated[None, Depends(swallowing)]) -> None:
        raise ValueError("the handler failed")

    with pytest.raises(ValueError, match="the handler failed") as caught:
        await run(handler)

    assert seen == [caught.value]


async def test_a_dependency_that_fails_closes_those_before_it() -> None:
    seen: list[str] = []

    async def opened() -> AsyncIterator[None]:
        try:
            yield
        finally:
            seen.append("closed")

    def broken() -> None:
        raise LookupError("no rate")

    async def handler(
        message: PlaceOrder,
        context: Context,
        first: Annotated[None, Depends(opened)],
        second: Annotated[None, Depends(broken)],
    ) -> None:
        seen.append("ran")

    with pytest.raises(LookupError):
        await run(handler)

    assert seen == ["closed"]


# ---- overrides


async def test_an_override_takes_the_place_of_a_dependency_and_of_a_resource() -> None:
    def far() -> str:
        return "far"

    def near(message: PlaceOrder) -> str:
        return f"near {message.number}"

    async def handler(message: PlaceOrder, context: Context, place: Annotated[str, Depends(far)], depot: Depot) -> Any:
        return place, depot

    big = BigDepot()

    assert await run(handler, overrides={far: near, Depot: lambda: big}) == ("near 3", big)


# ---- what is refused, where it is registered


async def by_keyword(message: Any, *, context: Context) -> None: ...


async def only_the_message(message: Any) -> None: ...


@pytest.mark.parametrize("handler", [by_keyword, only_the_message])
def test_message_and_context_come_first(handler: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"must take \(message, context\)"):
        plan_of(handler, PlaceOrder)


def dependency() -> int:
    return 1


def of_another(message: CancelOrder) -> None: ...


def endless(again: "Annotated[None, Depends(endless)]") -> None: ...


def yielding() -> Iterator[int]:
    yield 1


async def without_annotation(message: Any, context: Context, depot) -> None: ...  # type: ignore[no-untyped-def]


async def a_number(message: Any, context: Context, count: int) -> None: ...


async def a_choice(message: Any, context: Context, depot: Depot | None) -> None: ...


async def a_shape(message: Any, context: Context, unread: Unread) -> None: ...


_depends: Any = Depends(dependency)


async def a_default(message: Any, context: Context, count: Any = _depends) -> None: ...


async def twice(message: Any, context: Context, count: Annotated[int, Depends(dependency), Depends(len)]) -> None: ...


async def nameless(message: Any, context: Context, depot: Depot, /) -> None: ...


async def unknown(message: Any, context: Context, depot: "Nowhere") -> None: ...  # type: ignore[name-defined]  # noqa: F821


async def another(message: Any, context: Context, it: Annotated[None, Depends(of_another)]) -> None: ...


async def round_and_round(message: Any, context: Context, it: Annotated[None, Depends(endless)]) -> None: ...


async def plain_generator(message: Any, context: Context, it: Annotated[int, Depends(yielding)]) -> None: ...


async def no_function(message: Any, context: Context, it: Annotated[int, Depends(cast("Any", 7))]) -> None: ...


async def unreadable(message: Any, context: Context, it: Annotated[Any, Depends(type)]) -> None: ...


@pytest.mark.parametrize(
    ("handler", "words"),
    [
        (without_annotation, r"without_annotation: parameter 'depot': has no annotation: write its class"),
        (a_number, r"parameter 'count': int does not say which: write Annotated\[int, Depends"),
        (a_choice, r"parameter 'depot': .*Depot \| None does not say which"),
        (a_shape, r"parameter 'unread': nothing can be recognised as Unread: add @runtime_checkable"),
        (a_default, r"parameter 'count': write count: Annotated\[…, Depends\(…\)\], without a default"),
        (twice, r"parameter 'count': says Depends twice"),
        (nameless, r"parameter 'depot': has no name to give it by"),
        (unknown, r"parameter 'depot': 'Nowhere' cannot be read here .*import it at the module's top"),
        (another, r"parameter 'message' of of_another: is a CancelOrder, but a PlaceOrder is handled here"),
        (round_and_round, r"the dependency endless needs itself"),
        (plain_generator, r"the dependency yielding yields; write `async def`"),
        (no_function, r"Depends\(7\) names nothing that can be called"),
        (unreadable, r"the parameters of type cannot be read; put a function around it"),
    ],
)
def test_what_cannot_be_satisfied_is_refused_with_its_remedy(handler: Any, words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        plan_of(handler, PlaceOrder)


def test_annotations_that_only_type_checkers_can_read_are_left_alone() -> None:
    async def handler(
        message: "Nowhere",  # type: ignore[name-defined]  # noqa: F821
        context: Context,
        size: "Nowhere" = 3,  # type: ignore[name-defined]  # noqa: F821
    ) -> "Nowhere": ...  # type: ignore[name-defined]  # noqa: F821

    assert plan_of(handler, PlaceOrder).call is handler


def test_a_depends_that_cannot_be_read_is_no_default() -> None:
    async def handler(
        message: Any,
        context: Context,
        size: "Annotated[int, Depends(nowhere)]" = 3,  # noqa: F821
    ) -> None: ...

    with pytest.raises(ConfigurationError, match="cannot be read here"):
        plan_of(handler, PlaceOrder)


# ---- what is missing at start


def test_a_missing_resource_is_named_with_who_asks() -> None:
    def find(depot: Depot) -> None: ...

    async def handler(message: Any, context: Context, it: Annotated[None, Depends(find)]) -> None: ...

    plan = plan_of(handler, PlaceOrder)

    check_resources([plan], [BigDepot()])
    check_resources([plan], [], offered=(BigDepot,))
    with pytest.raises(ConfigurationError, match=r"handler: parameter 'depot' of .*find is a Depot, and there is none"):
        check_resources([plan], ["other"], offered=(int,))
