"""One pass over the dead letters of several services: replay or discard, with a progress bar, and what came of it.

A Ctrl-C ends the pass between two letters' fates: the summary still comes, and the connection is closed in order.
"""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, field

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from messaging.cli.dead_show import letter_record, show_letters
from messaging.cli.exits import BusyError, Exit, NothingMatchedError
from messaging.cli.render import console, escaped, line, print_json
from messaging.core.dead_letter import Selection
from messaging.errors import MessagingError, TopologyConflictError
from messaging.runtime.dead_letters import DeadLetters, DiscardReport, ReplayProgress, ReplayReport

__all__ = ["ReplayOrder", "discard_all", "replay_all"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayOrder:
    """How to replay; see `DeadLetters.replay`.

    Attributes:
        reason: For the record.
        limit, rate_per_s, canary: Bounds.
        force: Run even what is recorded as done.
        stop_after: Failures in a row that end the pass.
        dry_run: Only say what would be done.
        is_json: Whether the result is printed as JSON.
    """

    reason: str
    limit: int | None = None
    rate_per_s: float | None = None
    canary: int | None = None
    force: bool = False
    stop_after: int = 10
    dry_run: bool = False
    is_json: bool = False

    @property
    def bound(self) -> int | None:
        """At most so many letters, or None."""
        return min((bound for bound in (self.limit, self.canary) if bound is not None), default=None)


@dataclass(slots=True)
class _Tally:
    """What is known at any moment, so that an interrupted pass can say it."""

    reports: list[tuple[str, ReplayReport]] = field(default_factory=list)
    under_way: ReplayProgress | None = None

    @property
    def replayed(self) -> int:
        done = sum(report.replayed for _, report in self.reports)
        return done + (0 if self.under_way is None else self.under_way.done)

    @property
    def failed(self) -> int:
        return sum(report.failed for _, report in self.reports)

    def finish(self, service: str, report: ReplayReport) -> None:
        self.reports.append((service, report))
        self.under_way = None


async def replay_all(queues: DeadLetters, services: Sequence[str], selection: Selection, *, order: ReplayOrder) -> int:
    """Replay the selected letters of the services, one service after the other.

    Returns:
        The exit code.

    Raises:
        NothingMatchedError: nothing was selected, or nothing of it can be replayed.
    """
    tally = _Tally()
    with _bar(is_shown=not order.dry_run) as progress:
        try:
            for service in services:
                if order.bound is None or tally.replayed < order.bound:
                    await _replay_one(queues, service, selection, order=order, tally=tally, progress=progress)
        except (asyncio.CancelledError, MessagingError):
            progress.stop()
            _say_interrupted(tally)
            raise
    if tally.replayed + tally.failed == 0:
        raise NothingMatchedError(await _why_nothing(queues, services, selection))
    _show_replayed(tally.reports, order)
    is_stopped = any(report.stopped_because is not None for _, report in tally.reports)
    return int(Exit.FAILURE if tally.failed or is_stopped else Exit.OK)


async def discard_all(
    queues: DeadLetters,
    services: Sequence[str],
    selection: Selection,
    *,
    reason: str,
    dry_run: bool,
    is_json: bool,
) -> int:
    """Discard the selected letters of the services.

    Returns:
        The exit code.

    Raises:
        NothingMatchedError: nothing was selected.
    """
    reports: list[tuple[str, DiscardReport]] = []
    for service in services:
        with _alone(service):
            reports.append((service, await queues.discard(service, selection, reason=reason, dry_run=dry_run)))
    if not any(report.discarded for _, report in reports):
        raise NothingMatchedError(await _why_nothing(queues, services, selection))
    if is_json:
        print_json([
            {"service": service, "looked_at": report.looked_at, "discarded": report.discarded, "kept": report.kept,
             "dry_run": dry_run, "letters": [letter_record(letter) for letter in report.letters]}
            for service, report in reports
        ])  # fmt: skip
        return int(Exit.OK)
    for service, report in reports:
        if not report.looked_at:
            continue
        if dry_run and report.letters:
            show_letters(report.letters)
        verb = "would discard" if dry_run else "discarded"
        line(f"{service}: {verb} {report.discarded}, {report.kept} stay dead")
    return int(Exit.OK)


async def _replay_one(
    queues: DeadLetters,
    service: str,
    selection: Selection,
    *,
    order: ReplayOrder,
    tally: _Tally,
    progress: Progress,
) -> None:
    row: list[TaskID] = []

    def on_progress(now: ReplayProgress) -> None:
        if not row:
            row.append(progress.add_task(escaped(service), total=now.total, replayed=0, failed=0))
        tally.under_way = now
        progress.update(row[0], completed=now.looked_at, replayed=now.done, failed=now.failed)

    with _alone(service):
        report = await queues.replay(
            service,
            selection,
            reason=order.reason,
            limit=None if order.bound is None else order.bound - tally.replayed,
            rate_per_s=order.rate_per_s,
            force=order.force,
            stop_after=order.stop_after,
            dry_run=order.dry_run,
            on_progress=on_progress,
        )
    tally.finish(service, report)


@contextmanager
def _alone(service: str) -> Iterator[None]:
    """Say in the operator's words that another pass holds the lock of the queue."""
    try:
        yield
    except TopologyConflictError as error:
        raise BusyError(
            f"somebody else is replaying or discarding dead letters of {service!r} right now: wait until that pass ends"
        ) from error


def _bar(*, is_shown: bool) -> Progress:
    """Return the progress bar, on stderr: stdout is for results. In a pipe there is none."""
    screen = console(stderr=True)
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[replayed]} replayed, {task.fields[failed]} failed", markup=False),
        TimeRemainingColumn(),
        console=screen,
        disable=not (is_shown and screen.is_terminal),
    )


def _say_interrupted(tally: _Tally) -> None:
    now = tally.under_way
    if now is None and not tally.reports:
        # It had not begun: the error says it all.
        return
    left = "" if now is None else f", {now.total - now.done} were not and are still dead"
    line(f"stopped: {tally.replayed} replayed{left}; the same command goes on with what is left", stderr=True)


async def _why_nothing(queues: DeadLetters, services: Sequence[str], selection: Selection) -> str:
    """Say whether nothing was selected or nothing of it can be replayed."""
    for service in services:
        async with aclosing(queues.each(service, selection)) as letters:
            async for letter in letters:
                if letter.why_not is not None:
                    return f"dead letter {letter.id} of {service} cannot be replayed: {letter.why_not}"
    return (
        f"no dead letter matches in {', '.join(services) or 'any service'}; `messaging dead list` shows what there is"
    )


def _show_replayed(reports: Sequence[tuple[str, ReplayReport]], order: ReplayOrder) -> None:
    if order.is_json:
        print_json([
            {"service": service, "looked_at": report.looked_at, "replayed": report.replayed, "failed": report.failed,
             "kept": report.kept, "stopped_because": report.stopped_because, "dry_run": order.dry_run,
             "letters": [letter_record(letter) for letter in report.letters]}
            for service, report in reports
        ])  # fmt: skip
        return
    for service, report in reports:
        if not report.looked_at:
            continue
        if order.dry_run and report.letters:
            show_letters(report.letters)
        verb = "would replay" if order.dry_run else "replayed"
        line(f"{service}: {verb} {report.replayed}, {report.failed} failed, {report.kept} stay dead")
        if report.stopped_because is not None:
            line(f"{service}: stopped after {report.stopped_because}", stderr=True)
