"""Failpoints: where they kill, and that they are silent otherwise."""

import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import pytest

from messaging.core.inbox import Decision
from messaging.errors import ConfigurationError
from messaging.runtime.failpoint import Failpoint, Step
from messaging.stores.base import HandingOver, InboxKey, Reservation, Taker

ROOT = Path(__file__).resolve().parents[2]
DYING = "from messaging.runtime.failpoint import Failpoint, Step; Failpoint(Step.AFTER_COMMIT).reach(Step.AFTER_COMMIT)"
LEASE = Reservation(key=cast("InboxKey", None), decision=Decision.RUN)


class Journal:
    """An inbox and an outbox that only note what they are asked, and a death that is noted too."""

    def __init__(self) -> None:
        self.acts: list[str] = []

    def die(self) -> None:
        self.acts.append("died")

    async def complete(self, _reservation: Reservation, *, reply: bytes | None = None) -> bool:
        self.acts.append(f"complete {reply!r}")
        return True

    async def fail(self, _reservation: Reservation) -> bool:
        self.acts.append("fail")
        return True

    async def release(self, _reservation: Reservation) -> bool:
        self.acts.append("release")
        return True

    async def undo(self, _reservation: Reservation) -> None:
        self.acts.append("undo")

    async def claim(self, *, limit: int, lease_s: float, owner: str) -> Sequence[str]:
        self.acts.append(f"claim {lease_s:g} {owner}")
        return ["row"] * limit

    async def delete(self, rows: Sequence[Any]) -> None:
        self.acts.append(f"delete {list(rows)}")

    async def depth(self) -> tuple[int, int]:
        return 1, 2


async def life(failpoint: Failpoint, journal: Journal) -> None:
    inbox, outbox = failpoint.inbox(cast("Any", journal)), failpoint.outbox(cast("Any", journal))
    await inbox.complete(LEASE, reply=b"x")
    await inbox.fail(LEASE)
    await inbox.release(LEASE)
    await outbox.claim(limit=0, lease_s=1.0, owner="me")
    await outbox.claim(limit=1, lease_s=2.0, owner="me")
    await outbox.delete([cast("Any", 7)])


@pytest.mark.parametrize(
    ("step", "place"),
    [
        (Step.BEFORE_COMMIT, 0),
        (Step.AFTER_COMMIT, 1),
        (Step.AFTER_DEAD_LETTER, 1),
        (Step.AFTER_MARK, 2),
        (Step.AFTER_RUNG, 2),
        (Step.AFTER_CLAIM, 5),
        (Step.AFTER_RELAY, 5),
    ],
)
async def test_each_step_is_between_two_acts(step: Step, place: int) -> None:
    journal = Journal()

    await life(Failpoint(step, die=journal.die), journal)

    acts = ["complete b'x'", "fail", "release", "claim 1 me", "claim 2 me", "delete [7]"]
    assert journal.acts == [*acts[:place], "died", *acts[place:]]


async def test_it_dies_at_the_time_that_was_asked_for_and_once() -> None:
    journal = Journal()
    inbox = Failpoint(Step.AFTER_MARK, at=2, die=journal.die).inbox(cast("Any", journal))

    for _ in range(3):
        await inbox.fail(LEASE)

    assert journal.acts == ["fail", "fail", "died", "fail"]


async def test_everything_else_goes_through() -> None:
    journal = Journal()
    failpoint = Failpoint(Step.AFTER_COMMIT, die=journal.die)

    await failpoint.inbox(cast("Any", journal)).undo(LEASE)
    depth = await failpoint.outbox(cast("Any", journal)).depth()

    assert (depth, journal.acts) == ((1, 2), ["undo"])


def test_the_process_is_gone_without_a_word() -> None:
    done = subprocess.run([sys.executable, "-c", DYING], cwd=ROOT, capture_output=True, timeout=240, check=False)

    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGKILL, b"", b"")


def test_unset_there_is_none() -> None:
    assert Failpoint.parse(None) is None


async def test_the_text_names_step_and_time(monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal()
    monkeypatch.setattr("messaging.runtime.failpoint.os.kill", lambda _pid, _signal: journal.die())
    failpoint = Failpoint.parse("after_commit:2")
    assert failpoint is not None

    failpoint.reach(Step.AFTER_COMMIT)
    failpoint.reach(Step.AFTER_COMMIT)

    assert journal.acts == ["died"]


@pytest.mark.parametrize("text", ["", "elsewhere", "after_commit:x", "after_commit:-1"])
def test_an_unknown_step_is_a_mistake_with_the_remedy(text: str) -> None:
    with pytest.raises(ConfigurationError, match="before_commit, after_commit"):
        Failpoint.parse(text)


class HandingJournal(Journal):
    """One whose outbox hands over at once."""

    has_room = True

    def hand_over(self, taker: Taker, *, owner: str, lease_s: float) -> None:
        self.acts.append(f"hand over to {owner}, has room: {taker.has_room}")
        taker.take((), leaves_more=True)
        taker.take([cast("Any", "row")], leaves_more=False)

    def keep(self, owner: str) -> None:
        self.acts.append(f"keep from {owner}")

    def take(self, rows: Sequence[Any], *, leaves_more: bool) -> None:
        self.acts.append(f"take {list(rows)} {leaves_more}")


async def test_what_is_handed_over_is_held_like_what_was_claimed() -> None:
    journal = HandingJournal()
    outbox = Failpoint(Step.AFTER_CLAIM, die=journal.die).outbox(cast("Any", journal))
    assert isinstance(outbox, HandingOver)

    outbox.hand_over(journal, owner="me", lease_s=1.0)
    outbox.keep("me")

    assert journal.acts == [
        "hand over to me, has room: True",
        "take [] True",
        "died",
        "take ['row'] False",
        "keep from me",
    ]


def test_an_outbox_that_does_not_hand_over_is_not_made_to() -> None:
    journal = Journal()

    assert not isinstance(Failpoint(Step.AFTER_CLAIM).outbox(cast("Any", journal)), HandingOver)
