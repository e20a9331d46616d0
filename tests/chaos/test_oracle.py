"""The oracle itself: each kind of wrong is seen, and a run without any is praised."""

from collections import Counter
from dataclasses import replace
from pathlib import Path
from uuid import UUID

import pytest

from tests.chaos.history import Operation, Outcome, What, Writer, read_history
from tests.chaos.ledger import Did
from tests.chaos.oracle import Judgement, Letter, judge

pytestmark = pytest.mark.smoke

APPLIED, ASKED, SPOILT, MOVED = (UUID(int=number) for number in range(1, 5))
HISTORY = {
    op_id: Operation(op_id=op_id, what=what, outcome=Outcome.CONFIRMED, began_s=0.0, took_s=0.1)
    for op_id, what in ((APPLIED, What.APPLY), (ASKED, What.ASK), (SPOILT, What.SPOIL), (MOVED, What.TRANSFER))
}
GRAVE = Letter(id="f1", leaf=b"1", message_id=SPOILT, service="chaos", error="messaging.Reject")


def effects(**counts: list[UUID]) -> dict[Did, Counter[UUID]]:
    good = {"applied": [APPLIED], "answered": [ASKED], "transferred": [MOVED], "heard": [APPLIED, MOVED]}
    return {did: Counter({**good, **counts}.get(did.value, [])) for did in Did}


def judged(
    history: dict[UUID, Operation] | None = None, letters: tuple[Letter, ...] = (GRAVE,), **counts: list[UUID]
) -> Judgement:
    return judge(HISTORY if history is None else history, effects(**counts), letters, deadline_s=5.0)


def changed(op_id: UUID, **values: object) -> dict[UUID, Operation]:
    return {**HISTORY, op_id: replace(HISTORY[op_id], **values)}  # type: ignore[arg-type]


def test_a_run_in_which_everything_holds_has_no_problems() -> None:
    judgement = judged()

    assert judgement.problems == {}
    assert (judgement.messages, judgement.confirmed, judgement.dead, judgement.buried_again) == (4, 4, 1, 0)


@pytest.mark.parametrize(("op_id", "did"), [(APPLIED, "applied"), (ASKED, "answered"), (MOVED, "transferred")])
def test_what_was_confirmed_and_left_no_trace_is_lost(op_id: UUID, did: str) -> None:
    counts = {**effects(), Did(did): Counter[UUID]()}

    assert judge(HISTORY, counts, [GRAVE], deadline_s=5.0).lost == {op_id}


def test_what_was_not_confirmed_may_be_missing() -> None:
    assert judged(changed(APPLIED, outcome=Outcome.UNKNOWN), applied=[], heard=[MOVED]).problems == {}


def test_what_nobody_heard_of_is_seen() -> None:
    assert judged(heard=[APPLIED]).unheard == {MOVED}


@pytest.mark.parametrize("did", ["applied", "answered", "transferred", "heard"])
@pytest.mark.parametrize("outcome", list(Outcome))
def test_a_second_effect_is_seen_whatever_the_caller_was_told(did: str, outcome: Outcome) -> None:
    op_id = {"applied": APPLIED, "answered": ASKED, "transferred": MOVED, "heard": APPLIED}[did]
    counts = effects()
    counts[Did(did)][op_id] += 1

    judgement = judge(changed(op_id, outcome=outcome), counts, [GRAVE], deadline_s=5.0)

    assert judgement.twice == {op_id}


def test_a_call_that_overran_its_deadline_is_late() -> None:
    assert judged(changed(ASKED, took_s=6.0)).late == {ASKED}


def test_what_cannot_succeed_must_be_dead_and_without_effect() -> None:
    assert judged(letters=()).undead == {SPOILT}
    assert judged(applied=[APPLIED, SPOILT]).undead == {SPOILT}


def test_dead_twice_under_one_id_is_allowed_and_counted() -> None:
    judgement = judged(letters=(GRAVE, GRAVE))

    assert (judgement.problems, judgement.buried_again) == ({}, 1)


def test_what_callers_sent_again_is_counted() -> None:
    judgement = judged({**changed(ASKED, tries=3), APPLIED: replace(HISTORY[APPLIED], tries=2)})

    assert (judgement.problems, judgement.repeated) == ({}, 3)


def test_dead_under_two_ids_is_seen() -> None:
    assert judged(letters=(GRAVE, replace(GRAVE, id="f2"))).split == {SPOILT}


def test_two_copies_of_a_repeated_call_may_both_be_dead() -> None:
    assert judged(letters=(GRAVE, replace(GRAVE, id="f2", leaf=b"2"))).problems == {}


def test_whoever_died_without_a_reason_is_innocent() -> None:
    letters = (
        GRAVE,
        replace(GRAVE, id="f2", message_id=ASKED),
        Letter(id="f3", leaf=b"3", message_id=None, service="witness", error=""),
    )

    assert judged(letters=letters).innocent == {ASKED, UUID(int=0)}


def test_accounts_whose_entries_are_not_in_their_order_are_seen() -> None:
    entries = {"in order": [0, 1, 2], "with a gap": [0, 2], "turned round": [0, 2, 1], "twice": [0, 1, 1]}

    judgement = judge(HISTORY, effects(), [GRAVE], deadline_s=5.0, entries=entries)

    assert judgement.disordered == {"turned round", "twice"}


def test_problems_say_how_many_and_show_a_few() -> None:
    assert judged(applied=[]).problems == {"lost": ["1 in all", str(APPLIED)]}


def test_a_history_survives_the_death_of_its_writer(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    with path.open("w") as file:
        writer = Writer(file)
        writer.begin(APPLIED, What.APPLY)
        writer.end(APPLIED, Outcome.CONFIRMED, took_s=0.25, tries=2)
        writer.begin(ASKED, What.ASK)
        file.write('{"op": "00000000-0000')

    history = read_history(path)

    applied = history[APPLIED]
    assert (applied.outcome, applied.took_s, applied.tries) == (Outcome.CONFIRMED, 0.25, 2)
    assert history[ASKED].outcome is Outcome.OPEN
    assert set(history) == {APPLIED, ASKED}
