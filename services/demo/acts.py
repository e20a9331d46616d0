"""The acts of the story. Each does something real, waits for its effect, and tells what it saw."""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID, uuid4

import httpx

from messaging import DeadLetter, Selection
from messaging.operators import Operator
from services.demo.errors import DemoError, in_time
from services.demo.journal import log_lines
from services.demo.narrator import Narrator
from services.demo.stages import Stage
from services.demo.wiretap import Wiretap
from services.orders.contract import OrderPlaced
from services.users.contract import UserRegistered

__all__ = ["Acts"]

_ADA: Final = {"name": "Ada Lovelace", "email": "ada@example.org"}
_TEA: Final = {"item": "Darjeeling, first flush", "total_cents": 1250}
_ENGINE: Final = {"item": "Analytical Engine", "total_cents": 1_700_000}
# Bounds for what takes milliseconds, and seconds on a machine that is busy with something else.
_EFFECT_TIMEOUT_S: Final = 60.0
# All attempts of the short ladder, each with its wait for an answer, and room for a slow machine.
_BURIAL_TIMEOUT_S: Final = 75.0
_POLL_S: Final = 0.02
_DUMPED_LINES: Final = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """A command that the gateway accepted."""

    resource_id: UUID
    message_id: UUID
    location: str
    at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Acts:
    """The acts, in the order of their names below.

    Attributes:
        stage: The services.
        http: A client of the gateway.
        operator: Who works on the dead letters.
        wiretap: A copy of the commands.
        narrator: Prints.
    """

    stage: Stage
    http: httpx.AsyncClient
    operator: Operator
    wiretap: Wiretap
    narrator: Narrator

    async def register_user(self) -> UUID:
        """Send a command through the gateway and see its event arrive."""
        self.narrator.step("A command: register a user over HTTP")
        sent = await self._post("/users", _ADA)
        heard_s = await self._heard(UserRegistered, sent)
        view = await self._until(sent.location, lambda answer: answer.status_code == httpx.codes.OK)
        self.narrator.tell("users handled it:", _excerpt(view, "name", "registered_at"), mark="good")
        self.narrator.tell(
            f"the event UserRegistered reached a listener {1000 * heard_s:.0f} ms after the POST", mark="good"
        )
        return sent.resource_id

    async def place_order(self, user_id: UUID) -> UUID:
        """Send a command, look at it as the broker does, and see its event fan out."""
        self.narrator.step("A command and its event, fanned out: place an order")
        sent = await self._post(f"/users/{user_id}/orders", _TEA)
        await self._show_what_the_broker_saw(_TEA["item"], user_id)
        heard_s = await self._heard(OrderPlaced, sent)
        await self._until(f"/users/{user_id}", lambda answer: answer.json().get("orders_placed") == 1)
        self.narrator.tell(
            "the event OrderPlaced was heard by two services, each with a copy of its own:",
            f"users, which now counts 1 order of Ada's, and audience, after {1000 * heard_s:.0f} ms",
            mark="good",
        )
        return sent.resource_id

    async def ask(self, order_id: UUID) -> None:
        """Send requests and get a typed answer and a typed failure."""
        self.narrator.step("A request and its answer")
        found, took_ms = await self._get(f"/orders/{order_id}")
        _require(found, httpx.codes.OK)
        self.narrator.tell(
            f"GET /orders/… → 200 in {took_ms:.0f} ms:", _excerpt(found, "item", "total_cents", "status"), mark="good"
        )
        missing, took_ms = await self._get(f"/orders/{uuid4()}")
        _require(missing, httpx.codes.NOT_FOUND)
        problem = missing.json()
        self.narrator.tell(
            f"GET /orders/… of an unknown id → 404 in {took_ms:.0f} ms:",
            f"orders raised {problem['error']}, and the caller got it with its fields",
            mark="good",
        )

    async def fail(self, user_id: UUID) -> Sent:
        """Take the users service away, so that an order fails until it is buried."""
        self.narrator.step("A failure: the users service is stopped, an order comes in")
        place = self.stage.place_of("users")
        await self.stage.stop_users()
        self.narrator.tell(f"users stopped ({place})", mark="bad")
        sent = await self._post(f"/users/{user_id}/orders", _ENGINE)
        self.narrator.tell("accepted all the same: the broker keeps the command; orders asks users, in vain")
        with in_time("the order was buried", see=self.stage.orders_log):
            async with asyncio.timeout(_BURIAL_TIMEOUT_S):
                await self._tell_attempts(sent)
        return sent

    async def list_dead_letter(self, sent: Sent) -> DeadLetter:
        """Find the buried command with its reason, as an operator does."""
        self.narrator.step("The dead letter, opened with the operator's key")
        with in_time("the dead letter was listed", see=self.stage.orders_log):
            async with asyncio.timeout(_EFFECT_TIMEOUT_S):
                letter = await self._first_letter(sent)
        proof = "valid: the letter and the command in it" if letter.is_verified else "NOT VALID"
        self.narrator.show(
            [
                ("id", letter.id),
                ("message", f"{letter.message_name}/{letter.message_version} from {letter.sender}"),
                ("error", letter.fault.error),
                ("reason", letter.fault.reason),
                ("attempts", letter.fault.attempts),
                ("payload", json.dumps(letter.payload)),
                ("signatures", proof),
            ]
        )
        if not letter.is_replayable:
            raise DemoError(f"the dead letter cannot be replayed: {letter.why_not}")
        return letter

    async def mend_and_replay(self, sent: Sent, letter: DeadLetter) -> None:
        """Bring the users service back, replay the command, and see it succeed."""
        self.narrator.step("Mended and replayed")
        await self.stage.start_users()
        self.narrator.tell(f"users runs again ({self.stage.place_of('users')})", mark="good")
        report = await self.operator.dead_letters.replay(
            "orders", Selection(ids=frozenset({letter.id})), reason="the users service is back"
        )
        if report.replayed != 1:
            raise DemoError(f"the replay did not happen: {report.stopped_because or 'no letter was taken'}")
        self.narrator.tell(
            f"{self.operator.name} replayed it to the queue that failed:",
            "the same sealed bytes, in a cover signed by the operator",
        )
        view = await self._until(sent.location, lambda answer: answer.status_code == httpx.codes.OK)
        self.narrator.tell("the order succeeded:", _excerpt(view, "item", "total_cents", "status"), mark="good")
        left = await self._letters(sent)
        if left:
            raise DemoError("the dead letter is still there after its replay")
        self.narrator.tell("no dead letter of it is left", mark="good")

    # What the acts are made of.

    async def _post(self, path: str, body: dict[str, Any]) -> Sent:
        started_s = time.monotonic()
        answer = await _answered(self.http.post(path, json=body))
        took_ms = 1000 * (time.monotonic() - started_s)
        _require(answer, httpx.codes.ACCEPTED)
        shown = path if path.count("/") == 1 else "/users/…/orders"
        self.narrator.tell(f"POST {shown} → 202 in {took_ms:.0f} ms:", json.dumps(body))
        accepted = answer.json()
        return Sent(
            resource_id=UUID(accepted["id"]),
            message_id=UUID(accepted["message_id"]),
            location=answer.headers["location"],
            at=started_s,
        )

    async def _get(self, path: str) -> tuple[httpx.Response, float]:
        started_s = time.monotonic()
        answer = await _answered(self.http.get(path))
        return answer, 1000 * (time.monotonic() - started_s)

    async def _until(self, path: str, holds: Callable[[httpx.Response], bool]) -> httpx.Response:
        """Return the first answer that is as wished: a command takes effect a little after it was accepted."""
        with in_time(f"{path} was as expected", see=self.stage.orders_log.parent):
            async with asyncio.timeout(_EFFECT_TIMEOUT_S):
                while True:
                    answer, _ = await self._get(path)
                    if holds(answer):
                        return answer
                    await asyncio.sleep(_POLL_S)

    async def _heard(self, kind: type[UserRegistered] | type[OrderPlaced], sent: Sent) -> float:
        with in_time(f"{kind.__name__} was heard", see=self.stage.orders_log.parent):
            return await self.stage.audience.hears(kind, sent.resource_id) - sent.at

    async def _show_what_the_broker_saw(self, item: object, user_id: UUID) -> None:
        with in_time("the broker passed the command on", see=self.stage.orders_log.parent):
            key, body = await self.wiretap.next("orders.")
        secrets = [str(item).encode(), str(user_id).encode(), user_id.bytes]
        if any(secret in body for secret in secrets):
            raise DemoError("the payload passed the broker in clear: this must never happen, please report it")
        self.narrator.tell(f"what the broker saw under {key}: {len(body)} bytes, here a part of their last third")
        self.narrator.dump(body[2 * len(body) // 3 :], lines=_DUMPED_LINES)
        self.narrator.tell(f"neither {str(item)!r} nor the user's id stands anywhere in them", mark="good")

    async def _tell_attempts(self, sent: Sent) -> None:
        told = 0
        async for line in log_lines(self.stage.orders_log, message_id=str(sent.message_id)):
            buried = line["event"] == "delivery.buried"
            if not buried and line["event"] != "delivery.retried":
                continue
            # A first repetition follows at once, in the process, and has no line of its own.
            attempts = (
                f"attempt {line['attempt']}"
                if line["attempt"] == told + 1
                else f"attempts {told + 1} and {line['attempt']}"
            )
            told = line["attempt"]
            follows = "given up and buried" if buried else f"again in {line['delay_s']:g} s"
            self.narrator.tell(f"{attempts}: {line['error']};", follows, mark="bad")
            if buried:
                return

    async def _first_letter(self, sent: Sent) -> DeadLetter:
        while True:
            for letter in await self._letters(sent):
                return letter
            await asyncio.sleep(_POLL_S)

    async def _letters(self, sent: Sent) -> list[DeadLetter]:
        wanted = Selection(ids=frozenset({str(sent.message_id)}))
        return await self.operator.dead_letters.list("orders", wanted)


async def _answered(call: Awaitable[httpx.Response]) -> httpx.Response:
    try:
        return await call
    except httpx.HTTPError as error:
        raise DemoError(
            f"the gateway did not answer ({type(error).__name__}); see gateway.log in the demo's folder"
        ) from error


def _require(answer: httpx.Response, status: int) -> None:
    if answer.status_code != status:
        raise DemoError(f"{answer.request.method} {answer.request.url.path} → {answer.status_code}: {answer.text}")


def _excerpt(answer: httpx.Response, *names: str) -> str:
    view = answer.json()
    return json.dumps({name: view[name] for name in names})
