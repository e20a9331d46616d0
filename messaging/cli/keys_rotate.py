"""`messaging keys rotate`: one step of a rotation, and when the next may follow (docs/trust.md, "Rotation").

The key file comes first, the draft after it: what others are told to use is there already, whatever happens in between.
"""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Final

import typer

from messaging.ambient import real_ambient
from messaging.cli.drafts import show_draft
from messaging.cli.exits import UsageError
from messaging.cli.key_head import read_head
from messaging.cli.key_place import KeysOption, TrustOption, key_path, opened, trust_folder, trust_place
from messaging.cli.passphrases import PassphraseFd, PassphraseFile
from messaging.cli.render import line, shown_time
from messaging.core.names import is_sender
from messaging.errors import ConfigurationError, MessagingError
from messaging.security.bundle_edit import Content, with_part
from messaging.security.keyfile import write_keyring
from messaging.security.keyring import Keyring
from messaging.security.public_part import export_part, part_of
from messaging.security.roots import PINS_FILE
from messaging.security.rotation import DEAD_LETTER_AGE_MS, OVERLAP_MS, Plan, Step, Timing, plan_rotation
from messaging.security.rotation_steps import (
    facts_of,
    new_keys,
    plan_ahead,
    suites_in_use,
    take_step,
    with_new_keys,
    without_keys,
)
from messaging.security.suite import SUITE_1, SUITE_2
from messaging.security.suite_steps import with_suite
from messaging.security.trust_folder import TrustFolder

__all__ = ["TooEarlyError", "rotate"]

DAY_MS: Final = 24 * 3_600_000
_WORDS: Final = {
    Step.PUBLISH: "new keys are published as next: everybody accepts them, nobody uses them yet",
    Step.ACTIVATE: "the new keys become active, those before retiring",
    Step.RETIRE: "the old keys become retired: nothing under them runs any more",
    Step.DESTROY: "the retired keys are destroyed",
}
_FOLLOWING: Final = {Step.PUBLISH: Step.ACTIVATE, Step.ACTIVATE: Step.RETIRE, Step.RETIRE: Step.DESTROY}


class TooEarlyError(MessagingError):
    """The step would lose messages now; the text says from when it will not."""


def rotate(
    identity: Annotated[str, typer.Argument(metavar="IDENTITY", help="orders, or ops:alice.", show_default=False)],
    *,
    folder: KeysOption = None,
    trust: TrustOption = None,
    planned: Annotated[
        datetime | None,
        typer.Option(
            "--planned",
            metavar="TIME",
            help="Publish new keys that take over at this time (UTC), so that one signature is enough.",
            show_default=False,
        ),
    ] = None,
    begin: Annotated[
        bool, typer.Option("--begin", help="Begin a new rotation though retired keys still wait for their end.")
    ] = False,
    dead_letter_days: Annotated[
        int, typer.Option(help="How old dead letters may become before they are replayed or discarded.", min=1)
    ] = DEAD_LETTER_AGE_MS // DAY_MS,
    suite: Annotated[
        int | None,
        typer.Option(
            help="Publish keys of this suite beside those in use: 2 is post-quantum.",
            min=SUITE_1,
            max=SUITE_2,
            show_default=False,
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say which step is next, and when.")] = False,
    passphrase_file: PassphraseFile = None,
    passphrase_fd: PassphraseFd = None,
) -> None:
    """Take the one next step of a rotation: publish new keys, activate them, retire the old ones, destroy those.

    It works on the key file and on the draft of the next trust bundle; `messaging trust sign` puts that in force. A
    step that comes too early would lose messages and is refused with its earliest time.

    With --suite it adds keys of another suite, which take nothing over: messages are sealed to them when the bundle
    says so (`messaging trust suites`).

    Where only the key file is, the first step adds new keys to it; `messaging keys export` and, where the bundle is
    made, `messaging trust add` publish them.

    Exit codes: 0 done, 1 too early.

    Example: [bold]messaging keys rotate orders --keys keys --trust trust[/bold]
    """
    if not is_sender(identity):
        raise UsageError(
            f"{identity!r} is no identity: name a service such as orders, or an operator such as ops:alice"
        )
    path = key_path(identity, folder)
    keyring, passphrase = opened(path, file=passphrase_file, fd=passphrase_fd) if path.exists() else (None, None)
    if not (trust_place(trust) / PINS_FILE).exists():
        _extend(keyring, path, passphrase, suite=suite, is_bare=planned is None and not (begin or dry_run))
        return
    work = _Rotation(identity, trust_folder(trust), keyring, dead_letter_age_ms=dead_letter_days * DAY_MS)
    if suite is not None:
        work.add_suite(suite, path, passphrase, alone=planned is None and not (begin or dry_run))
        return
    plan = work.plan(begin=begin)
    if planned is not None and plan.step is not Step.PUBLISH:
        raise UsageError(
            f"--planned begins a rotation, and the next step is to {plan.step.value}; finish that one first"
        )
    if dry_run:
        said = _said(plan, is_planned=False)
        line(f"Next for {identity}: {plan.step.value}, {said}; from {shown_time(plan.earliest_ms)}")
        return
    if not plan.is_due(now_ms=work.now_ms):
        raise TooEarlyError(
            f"too early to {plan.step.value} keys of {identity}: from {shown_time(plan.earliest_ms)}; before that "
            f"messages would be lost{' (a new rotation: --begin)' if plan.step is Step.DESTROY else ''}"
        )
    work.check_draft()
    changed = work.take(plan, path, passphrase, at_ms=None if planned is None else _unix_ms(planned))
    line(f"{identity}: {_said(plan, is_planned=planned is not None)}.")
    if keyring is not None and changed:
        line(f"{path} has changed: install it with every replica and restart them, before the bundle is in force.")
    show_draft(work.trust)
    work.show_next(plan, planned_ms=None if planned is None else _unix_ms(planned))


class _Rotation:
    """One rotation where the bundle is made."""

    def __init__(self, identity: str, trust: TrustFolder, keyring: Keyring | None, *, dead_letter_age_ms: int) -> None:
        self.trust = trust
        self.now_ms = real_ambient().now_ms()
        self._identity = identity
        self._keyring = keyring
        self._history = trust.history()
        self._owned = self._own_groups()
        self._facts = facts_of(self._history, identity, owned=self._owned)
        lifetime_ms = 1000 * int(self._history[-1]["max_lifetime_s"])
        self._timing = Timing(max_lifetime_ms=lifetime_ms, dead_letter_age_ms=dead_letter_age_ms)

    def plan(self, *, begin: bool) -> Plan:
        """Return the next step."""
        return plan_rotation(self._facts, self._timing, now_ms=self.now_ms, begin=begin)

    def check_draft(self) -> None:
        """Refuse a second step in one draft: each step stands on the one before being in force.

        Raises:
            ConfigurationError: The draft changes keys of this identity already.
        """
        if not self.trust.has_draft:
            return
        drafted = facts_of([self.trust.content()], self._identity, owned=self._own_groups())
        if [(fact.kid, fact.state) for fact in drafted] != [(fact.kid, fact.state) for fact in self._facts]:
            raise ConfigurationError(
                f"the draft changes keys of {self._identity!r} already: `messaging trust sign` it first, or "
                "`messaging trust discard` it"
            )

    def take(self, plan: Plan, path: Path, passphrase: bytes | None, *, at_ms: int | None) -> bool:
        """Take the step; returns whether the key file has changed."""
        content = self.trust.content()
        if plan.step is Step.PUBLISH:
            return self._publish(plan, content, path, passphrase, at_ms=at_ms)
        self._propose(take_step(content, self._identity, plan, owned=self._owned))
        kids = frozenset(plan.kids) if plan.step is Step.DESTROY else frozenset(self._signing_ids(plan))
        if self._keyring is None or plan.step is Step.ACTIVATE or not kids:
            return False
        write_keyring(without_keys(self._keyring, kids), path, passphrase=passphrase, replace=True)
        return True

    def add_suite(self, suite: int, path: Path, passphrase: bytes | None, *, alone: bool) -> None:
        """Publish keys of another suite beside those in use; `alone` when nothing else is asked for."""
        if not alone:
            raise UsageError("--suite adds keys and nothing else: leave out --planned, --begin and --dry-run")
        self.check_draft()
        keyring, content = self._held(path), self.trust.content()
        if not new_keys(keyring, content):
            keyring = with_suite(keyring, suite)
            write_keyring(keyring, path, passphrase=passphrase, replace=True)
        self._propose(with_part(content, part_of(keyring)))
        self.trust.keep_part(export_part(keyring), part_of(keyring))
        line(f"{self._identity}: keys of suite {suite} are published as next, beside those in use.")
        line(f"{path} has changed: install it with every replica and restart them, before the bundle is in force.")
        settled = shown_time(self.now_ms + self._timing.settle_ms)
        show_draft(self.trust)
        line(f"Next: make them active, not before {settled}: messaging keys rotate {self._identity}")

    def show_next(self, plan: Plan, *, planned_ms: int | None) -> None:
        """Say which step follows and when it may be taken at the earliest."""
        following = _FOLLOWING.get(plan.step)
        if planned_ms is not None or (plan.step is Step.PUBLISH and plan.is_urgent):
            following = Step.RETIRE
        if following is None:
            line("This rotation is complete.")
            return
        since_ms = self.now_ms if planned_ms is None else planned_ms + OVERLAP_MS
        waits_ms = {
            Step.ACTIVATE: self._timing.settle_ms,
            Step.RETIRE: self._timing.retiring_ms,
            Step.DESTROY: self._timing.retired_ms,
        }[following]
        line(
            f"Next: {following.value} ({_WORDS[following]}), not before {shown_time(since_ms + waits_ms)}: "
            f"messaging keys rotate {self._identity}"
        )

    def _publish(
        self, plan: Plan, content: Content, path: Path, passphrase: bytes | None, *, at_ms: int | None
    ) -> bool:
        keyring = self._held(path)
        # Keys of an earlier run whose draft came to nothing are used, not forgotten.
        has_new = bool(new_keys(keyring, content))
        keyring = keyring if has_new else with_new_keys(keyring, suites_in_use(content, self._identity))
        part = part_of(keyring)
        changed = with_part(content, part) if at_ms is None else plan_ahead(content, part, at_ms=at_ms)
        if plan.is_urgent:
            fresh = tuple(new_keys(keyring, content))
            changed = take_step(
                changed, self._identity, replace(plan, step=Step.ACTIVATE, kids=fresh), owned=_own(keyring)
            )
        if not has_new:
            write_keyring(keyring, path, passphrase=passphrase, replace=True)
        self._propose(changed)
        self.trust.keep_part(export_part(keyring), part)
        return True

    def _held(self, path: Path) -> Keyring:
        if self._keyring is None:
            raise ConfigurationError(
                f"no key file at {path}, and new keys go into it: name its folder with --keys; or run this where it "
                f"is, `messaging keys export {self._identity}` there, and `messaging trust add` the file here"
            )
        return self._keyring

    def _propose(self, content: Content) -> None:
        self.trust.propose(content, now_ms=self.now_ms)

    def _signing_ids(self, plan: Plan) -> list[str]:
        # What is retired never signs again, so its private half goes at once; what is sealed to a key needs it longer.
        return [fact.kid for fact in self._facts if fact.role == "sign" and fact.kid in plan.kids]

    def _own_groups(self) -> dict[str, frozenset[str]]:
        if self._keyring is not None:
            return _own(self._keyring)
        part = self.trust.part(self._identity)
        groups = {} if part is None else part.groups
        return {group: frozenset(key.kid.hex() for key in keys) for group, keys in groups.items()}


def _said(plan: Plan, *, is_planned: bool) -> str:
    if plan.step is Step.PUBLISH and plan.is_urgent:
        return "no usable key was left, so new keys are published and active at once"
    if plan.step is Step.PUBLISH and is_planned:
        return "new keys are published, and active from the planned time"
    return _WORDS[plan.step]


def _extend(keyring: Keyring | None, path: Path, passphrase: bytes | None, *, suite: int | None, is_bare: bool) -> None:
    if keyring is None:
        read_head(path)
        return
    if not is_bare:
        raise UsageError(
            f"no {PINS_FILE} here, and --planned, --begin and --dry-run need the bundle: name its folder with --trust. "
            "Without them this adds new keys to the key file"
        )
    extended = with_new_keys(keyring) if suite is None else with_suite(keyring, suite)
    write_keyring(extended, path, passphrase=passphrase, replace=True)
    name = keyring.service
    line(f"{path} has new keys beside those in use. Install it with every replica and restart them. Then:")
    line(f"  here                         messaging keys export {name} -o {name.replace(':', '.')}.json")
    line(f"  where the bundle is made     messaging trust add {name.replace(':', '.')}.json, then keys rotate {name}")


def _own(keyring: Keyring) -> dict[str, frozenset[str]]:
    return {group: frozenset(kid.hex() for kid in keys) for group, keys in keyring.groups.items()}


def _unix_ms(time: datetime) -> int:
    return int(time.replace(tzinfo=UTC).timestamp() * 1000)
