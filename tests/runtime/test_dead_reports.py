"""What a pass counts and tells."""

from messaging.core.dead_letter import DeadLetter
from messaging.core.fault import Fault
from messaging.errors import PublishNotConfirmedError
from messaging.runtime import dead_reports
from messaging.runtime.dead_reports import ReplayProgress, Tally

LETTER = DeadLetter(
    id="a1",
    service="orders",
    is_verified=True,
    fault=Fault(error="E", reason="r"),
    original=b"sealed",
    payload={"n": 1},
)


def test_counts_add_up() -> None:
    tally = Tally(total=9, stop_after=3)
    for _ in range(5):
        tally.looked()
    tally.succeeded(LETTER)
    tally.failed_with(PublishNotConfirmedError("full"))
    tally.repeated += 1

    report = tally.replay_report()
    assert (report.looked_at, report.replayed, report.failed, report.kept) == (5, 1, 1, 3)
    assert report.stopped_because is None
    assert (tally.discard_report().discarded, tally.discard_report().kept) == (1, 3)


def test_failures_in_a_row_stop_a_pass_and_the_first_reason_stays() -> None:
    tally = Tally(total=9, stop_after=2)

    tally.failed_with(PublishNotConfirmedError("one"))
    tally.succeeded(LETTER)
    tally.failed_with(PublishNotConfirmedError("two"))
    assert tally.stopped is None
    tally.failed_with(PublishNotConfirmedError("three"))
    tally.failed_with(PublishNotConfirmedError("four"))

    assert tally.stopped == "2 failures in a row, the last: three"


def test_a_report_keeps_few_letters_and_no_content() -> None:
    tally = Tally(total=9_999, stop_after=2)
    for _ in range(dead_reports.LETTERS_KEPT + 5):
        tally.succeeded(LETTER)

    report = tally.replay_report()
    assert report.replayed == dead_reports.LETTERS_KEPT + 5
    assert len(report.letters) == dead_reports.LETTERS_KEPT
    assert {(letter.id, letter.original, letter.payload) for letter in report.letters} == {("a1", b"", None)}


def test_progress_is_told_of_each_act_and_now_and_then_of_looking() -> None:
    told: list[ReplayProgress] = []
    tally = Tally(total=250, stop_after=2, on_progress=told.append)
    for _ in range(250):
        tally.looked()
    tally.succeeded(LETTER)

    assert [step.looked_at for step in told] == [100, 200, 250]
    assert told[-1] == ReplayProgress(total=250, looked_at=250, done=1, failed=0)
