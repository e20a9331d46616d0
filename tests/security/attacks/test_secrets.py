"""No payload and no key is in anything that the program said or shows of itself: the last attack of the session."""

import gc
import pickle
from collections import Counter
from typing import Any, Final

import pytest

from messaging import Context, Reject
from messaging.core.envelope import Envelope
from messaging.operators import open_operator
from messaging.runtime.handling import Handling
from messaging.security.content import Content
from messaging.security.suite import DataKey, fresh_bytes
from tests.support.arena import MARKER, Arena, GetOrder, OrderPlaced, OrderView, PlaceOrder
from tests.support.exhibits import Exhibits
from tests.support.realm import EVERY_KIND

pytestmark = pytest.mark.attack(49)

OURS: Final = "messaging."
# Objects of one type are pickled alike.
ENOUGH: Final = 3


def ours() -> list[object]:
    """Return every object of ours that is alive."""
    return [found for found in gc.get_objects() if str(getattr(type(found), "__module__", "")).startswith(OURS)]


async def everything(arena: Arena) -> list[object]:
    """Let all kinds of messages pass in all ways, and return every object of ours that is alive meanwhile."""
    seen: list[object] = []

    async def looks(message: Any, context: Context) -> Any:
        seen.extend(ours())
        seen.extend((message, context))
        if isinstance(message, GetOrder):
            return OrderView(status=MARKER)
        raise Reject("never")

    arena.behave = {"orders": looks}
    event, request, body = arena.sealed(OrderPlaced()), arena.sealed(GetOrder()), arena.sealed(headers={"user": MARKER})
    await arena.struck(event, service="users", part="events")
    await arena.struck(request, part="requests")
    await arena.struck(body)
    await arena.struck(arena.realm.replay(body, headers={"reason": "why"}))
    await arena.services["users"].request(GetOrder())
    async with open_operator(arena.settings, "ops:alice", ambient=arena.clock.ambient) as operator:
        seen.extend(await operator.dead_letters.list("orders"))
        await operator.dead_letters.replay("orders", reason="again")
        await arena.settled()
    opener = arena.realm.opener("orders")
    verified = opener.verify(body, kinds=EVERY_KIND)
    seen.extend((verified, opener.decrypt(verified), arena.realm.sealer("users")))
    seen.extend(ours())
    return seen


async def test_no_object_of_ours_shows_a_payload_or_a_key(arena: Arena, exhibits: Exhibits) -> None:
    shown = Exhibits()
    shown.secrets = exhibits.secrets
    kinds: set[str] = set()
    for thing in await everything(arena):
        # Messages are the user's own models, and show what is in them, as do the settings what was set.
        if isinstance(thing, type) or type(thing).__name__ in {"PlaceOrder", "GetOrder", "OrderPlaced", "OrderView"}:
            continue
        kinds.add(type(thing).__name__)
        shown.show(thing)

    assert kinds > {"Envelope", "Handling", "Verified", "Keyring", "SigningKey", "DataKey", "SendKey", "DeadLetter"}
    assert kinds > {"Context", "Opener", "Sealer", "Reservation", "Engine", "Replay"}
    assert shown.found(MARKER) == []


async def test_what_holds_a_key_is_never_pickled(arena: Arena, exhibits: Exhibits) -> None:
    pickled = Exhibits()
    pickled.secrets = exhibits.secrets
    refused: set[str] = set()
    tried: Counter[type] = Counter()
    for thing in await everything(arena):
        tried[type(thing)] += 1
        if tried[type(thing)] > ENOUGH:
            continue
        if isinstance(thing, Envelope | Content | Handling) or type(thing).__name__ in {
            *("PlaceOrder", "GetOrder", "OrderPlaced", "OrderView", "Context"),
            *("Fault", "DeadLetter", "Reservation", "Run"),
        }:  # fmt: skip
            # They hold what the application was given, and go where it sends them.
            continue
        try:
            pickled.write(f"{type(thing).__name__}: {pickle.dumps(thing)!r}")
        except (TypeError, AttributeError, NotImplementedError, pickle.PicklingError):
            refused.add(type(thing).__name__)

    assert refused > {"Keyring", "SigningKey", "DecryptionKey", "DataKey", "SendKey", "SendKeys", "Sealer", "Opener"}
    assert pickled.found() == []


def test_a_data_key_shows_nothing_of_itself() -> None:
    secret = fresh_bytes(32)

    assert secret.hex() not in repr(DataKey(secret)) + str(vars(type(DataKey(secret))))
    with pytest.raises(TypeError):
        pickle.dumps(DataKey(secret))


async def test_nothing_said_in_this_session_holds_a_payload_or_a_key(arena: Arena, exhibits: Exhibits) -> None:
    await everything(arena)
    await arena.struck(arena.sealed(PlaceOrder(note=MARKER)), b"junk")

    assert exhibits.secrets
    assert len(exhibits.texts) > 20
    assert exhibits.found(MARKER) == []
