"""The oracle: judges a run by what callers were told, what handlers did, and what lies in the dead letters.

Total-queue model (everything that was confirmed comes out, exactly once) over a ledger of effects. It is asked after
the backlog has drained, so "still queued" is no excuse. The invariants:

- I1: no confirmed message is lost: it was processed, or it is dead. What a handler published was heard.
- I2: no effect twice, also of calls whose outcome is unknown.
- I5: every call returned or raised by its deadline.
- I7: what cannot succeed is dead and left no effect; nothing else is dead; the same bytes are dead under one id. (A
  call that was repeated is other bytes with the same message id: both copies may fail, and then both are dead.)
- I8: what was entered in an account has rising numbers, as its caller sent them.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

from tests.chaos.history import Operation, Outcome, What
from tests.chaos.ledger import Did

__all__ = ["Judgement", "Letter", "judge"]

_EFFECT: Mapping[What, Did] = {
    What.APPLY: Did.APPLIED,
    What.ASK: Did.ANSWERED,
    What.TRANSFER: Did.TRANSFERRED,
    What.ENTER: Did.ENTERED,
    What.STALL: Did.APPLIED,
    What.BLOCK: Did.APPLIED,
    What.NEWER: Did.APPLIED,
    What.EXTRA: Did.APPLIED,
    What.ASK_EXTRA: Did.ANSWERED,
}
_PUBLISHES = frozenset({What.APPLY, What.NEWER, What.TRANSFER})
_HOPELESS = frozenset({What.SPOIL, What.KILL})


@dataclass(frozen=True, slots=True, kw_only=True)
class Letter:
    """One dead letter: its own id, its message's, the leaf of the bytes, the service it died in, and its error."""

    id: str
    leaf: bytes
    message_id: UUID | None
    service: str
    error: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """What the oracle found. Everything but the counts must be empty.

    Attributes:
        messages, confirmed: How many calls there were, and how many were confirmed.
        repeated: How often callers sent a message again, after an error; the inbox drops what arrives twice.
        dead: How many letters.
        buried_again: Letters that are there twice under one id: allowed, a crash between burying and recording does it.
        lost: Confirmed, and neither processed nor dead (I1).
        unheard: Processed, but what was published never arrived (I1).
        twice: More than one effect (I2).
        late: Calls that overran their deadline (I5).
        undead: Hopeless, confirmed, and not dead, or left an effect (I7).
        split: The same bytes, dead under several ids (I7).
        innocent: Dead without a reason to be (I7).
        disordered: Accounts whose entries are not in their order (I8).
    """

    messages: int
    confirmed: int
    repeated: int
    dead: int
    buried_again: int
    lost: frozenset[UUID]
    unheard: frozenset[UUID]
    twice: frozenset[UUID]
    late: frozenset[UUID]
    undead: frozenset[UUID]
    split: frozenset[UUID]
    innocent: frozenset[UUID]
    disordered: frozenset[str]

    @property
    def problems(self) -> dict[str, list[str]]:
        """What is wrong, by name, with the first few ids."""
        names = ("lost", "unheard", "twice", "late", "undead", "split", "innocent", "disordered")
        found = {name: sorted(map(str, getattr(self, name))) for name in names}
        return {name: [f"{len(ids)} in all", *ids[:5]] for name, ids in found.items() if ids}


def judge(
    history: Mapping[UUID, Operation],
    effects: Mapping[Did, Counter[UUID]],
    letters: Iterable[Letter],
    *,
    deadline_s: float,
    entries: Mapping[str, Sequence[int]] | None = None,
) -> Judgement:
    """Judge a run that has drained.

    Args:
        history: Every call.
        effects: How often each operation was noted.
        letters: The dead letters of all services.
        deadline_s: What one call may take.
        entries: Numbers of each account in the order in which they were entered.
    """
    letters = list(letters)
    dead_in_chaos = {letter.message_id for letter in letters if letter.service == "chaos"}
    did = {op_id for counts in (effects[did] for did in _EFFECT.values()) for op_id in counts}
    heard = effects[Did.HEARD]
    confirmed = {op_id: found for op_id, found in history.items() if found.outcome is Outcome.CONFIRMED}
    published = {op_id for op_id in did if op_id in history and history[op_id].what in _PUBLISHES}
    hopeless = {op_id for op_id, found in history.items() if found.what in _HOPELESS}
    return Judgement(
        messages=len(history),
        confirmed=len(confirmed),
        repeated=sum(found.tries - 1 for found in history.values()),
        dead=len(letters),
        buried_again=len(letters) - len({(letter.id, letter.service) for letter in letters}),
        lost=frozenset(op_id for op_id in confirmed if op_id not in did and op_id not in dead_in_chaos),
        unheard=frozenset(published - set(heard)),
        twice=frozenset(op_id for counts in effects.values() for op_id, times in counts.items() if times > 1),
        late=frozenset(op_id for op_id, found in history.items() if found.took_s > deadline_s),
        undead=frozenset((hopeless & set(confirmed)) - dead_in_chaos | (hopeless & did)),
        split=_split(letters),
        innocent=frozenset(op_id for op_id in dead_in_chaos - hopeless if op_id is not None) | _elsewhere(letters),
        disordered=frozenset(
            account for account, numbers in (entries or {}).items() if list(numbers) != sorted(set(numbers))
        ),
    )


def _split(letters: list[Letter]) -> frozenset[UUID]:
    ids: dict[tuple[UUID, bytes], set[str]] = {}
    for letter in letters:
        if letter.message_id is not None and letter.service == "chaos":
            ids.setdefault((letter.message_id, letter.leaf), set()).add(letter.id)
    return frozenset(message_id for (message_id, _), found in ids.items() if len(found) > 1)


def _elsewhere(letters: list[Letter]) -> frozenset[UUID]:
    """Nothing has a reason to die but in the service that fails it."""
    return frozenset(letter.message_id or UUID(int=0) for letter in letters if letter.service != "chaos")
