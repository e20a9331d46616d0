"""What a type checker must reject. A line that it admits makes its ignore comment unused, and that is an error."""

from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

import messaging
from messaging import Context, Depends, Fault
from tests.typing.contract import GetOrder, OrderPlaced, OrderView, OutOfStock, PlaceOrder, orders

# ---- handlers of another message


@orders.on_command(PlaceOrder)  # type: ignore[arg-type]
async def command_takes_an_event(event: OrderPlaced, context: Context) -> None: ...


@orders.on_event(OrderPlaced)  # type: ignore[arg-type]
async def event_takes_a_command(command: PlaceOrder, context: Context) -> None: ...


@orders.on_request(GetOrder)  # type: ignore[arg-type]
async def request_takes_a_command(command: PlaceOrder, context: Context) -> OrderView:
    return OrderView(status="x")


@orders.on_fault(PlaceOrder)  # type: ignore[arg-type]
async def fault_takes_the_command(command: PlaceOrder, context: Context) -> None: ...


# ---- decorators of another kind


@orders.on_command(OrderPlaced)  # type: ignore[type-var]
async def command_of_an_event(event: OrderPlaced, context: Context) -> None: ...


@orders.on_event(PlaceOrder)  # type: ignore[type-var]
async def event_of_a_command(command: PlaceOrder, context: Context) -> None: ...


@orders.on_request(PlaceOrder)  # type: ignore[arg-type, misc]
async def request_of_a_command(command: PlaceOrder, context: Context) -> None: ...


@orders.on_fault(OrderPlaced)  # type: ignore[type-var]
async def fault_of_an_event(fault: Fault, context: Context) -> None: ...


# ---- answers


@orders.on_request(GetOrder)  # type: ignore[arg-type]
async def request_answers_something_else(request: GetOrder, context: Context) -> str:
    return "placed"


@orders.on_request(GetOrder)  # type: ignore[arg-type]
async def request_forgets_the_answer(request: GetOrder, context: Context) -> None: ...


@orders.on_request(GetOrder)  # type: ignore[arg-type]
async def request_may_answer_nothing(request: GetOrder, context: Context) -> OrderView | None:
    return None


@orders.on_command(PlaceOrder)  # type: ignore[arg-type]
async def command_answers(command: PlaceOrder, context: Context) -> int:
    return 1


# ---- the shape of a handler


@orders.on_command(PlaceOrder)  # type: ignore[arg-type]
def command_is_not_async(command: PlaceOrder, context: Context) -> None: ...


@orders.on_command(PlaceOrder)  # type: ignore[arg-type]
async def command_without_context(command: PlaceOrder) -> None: ...


@orders.on_command(PlaceOrder)  # type: ignore[arg-type]
async def context_first(context: Context, command: PlaceOrder) -> None: ...


@orders.on_command(PlaceOrder)  # type: ignore[arg-type]
async def resource_before_the_context(command: PlaceOrder, session: AsyncSession, context: Context) -> None: ...


@orders.on_request(GetOrder)  # type: ignore[arg-type]
async def answers_something_else_with_a_resource(request: GetOrder, context: Context, session: AsyncSession) -> str:
    return "placed"


Depends()  # type: ignore[call-arg]
Depends(UUID, False)  # type: ignore[call-arg]


# ---- sending


async def calls(context: Context) -> None:
    order_id = UUID(int=1)
    command, event, question = (
        PlaceOrder(order_id=order_id, total_cents=1),
        OrderPlaced(order_id=order_id),
        GetOrder(order_id=order_id),
    )
    await orders.send(event)  # type: ignore[arg-type]
    await orders.send(question)  # type: ignore[arg-type]
    await orders.publish(command)  # type: ignore[arg-type]
    await orders.request(command)  # type: ignore[arg-type]
    await context.send(event)  # type: ignore[arg-type]
    await context.request(event)  # type: ignore[arg-type]
    await orders.send(command, order_id)  # type: ignore[call-arg]
    answer: str = await orders.request(question)  # type: ignore[arg-type]
    shape = context.resource(UUID).shape  # type: ignore[attr-defined]
    del answer, shape


# ---- messages and failures

PlaceOrder(order_id=UUID(int=1))  # type: ignore[call-arg]
PlaceOrder(order_id=UUID(int=1), total_cents=1, more=1)  # type: ignore[call-arg]
PlaceOrder(order_id=UUID(int=1), total_cents=1).total_cents = 2  # type: ignore[misc]
OutOfStock("a")  # type: ignore[call-arg]
OutOfStock(sku=1)  # type: ignore[arg-type]
OutOfStock(left=1)  # type: ignore[call-arg]

# ---- names

messaging.Misspelt()  # type: ignore[attr-defined]
