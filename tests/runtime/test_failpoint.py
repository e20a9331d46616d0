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
from messaging.stores.base import InboxKey, Reservation

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

    async def claim(self, *, limit: int, lease_s: float, owner: str) -> Sequence[str]:
        self.acts.append(f"claim {lease_s:g} {owner}")
        return ["row"] * limit

    async def delete(self, ids: Sequence[int]) -> None:
        self.acts.append(f"delete {list(ids)}")

    async def depth(self) -> tuple[int, int]:
        return 1, 2


async def life(failpoint: Failpoint, journal: Journal) -> None:
    inbox, outbox = failpoint.inbox(cast("Any", journal)), failpoint.outbox(cast("Any", journal))
    await inbox.complete(LEASE, reply=b"x")
    await inbox.fail(LEASE)
    await outbox.claim(limit=0, lease_s=1.0, owner="me")
    await outbox.claim(limit=1, lease_s=2.0, owner="me")
    await outbox.delete([7])


@pytest.mark.parametrize(
    ("step", "place"),
    [
        (Step.BEFORE_COMMIT, 0),
        (Step.AFTER_COMMIT, 1),
        (Step.AFTER_DEAD_LETTER, 1),
        (Step.AFTER_MARK, 2),
        (Step.AFTER_CLAIM, 4),
        (Step.AFTER_RELAY, 4),
    ],
)
async def test_each_step_is_between_two_acts(step: Step, place: int) -> None:
    journal = Journal()

    await life(Failpoint(step, die=journal.die), journal)

    acts = ["complete b'x'", "fail", "claim 1 me", "claim 2 me", "delete [7]"]
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

    released = await failpoint.inbox(cast("Any", journal)).release(LEASE)
    depth = await failpoint.outbox(cast("Any", journal)).depth()

    assert (released, depth, journal.acts) == (True, (1, 2), ["release"])


def test_the_process_is_gone_without_a_word() -> None:
    done = subprocess.run([sys.executable, "-c", DYING], cwd=ROOT, capture_output=True, timeout=60, check=False)

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
