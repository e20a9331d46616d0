"""The rotation of keys as a table: which step follows, and when."""

from dataclasses import replace

import pytest

from messaging.security.bundle import KeyState
from messaging.security.rotation import (
    DEAD_LETTER_AGE_MS,
    REPLAY_WINDOW_MS,
    SETTLE_MS,
    KeyFact,
    Plan,
    Step,
    Timing,
    plan_rotation,
)

NOW = 1_800_000_000_000
LIFE = 7 * 24 * 3_600_000
TIMING = Timing(max_lifetime_ms=LIFE)


def fact(kid: str, state: KeyState, *, since: int = NOW, role: str = "sign", until: int | None = None) -> KeyFact:
    return KeyFact(kid=kid, role=role, state=state, since_ms=since, not_after_ms=until)


def planned(*keys: KeyFact, now: int = NOW, begin: bool = False) -> Plan:
    return plan_rotation(keys, TIMING, now_ms=now, begin=begin)


ACTIVE = fact("a", KeyState.ACTIVE, since=0)
NEXT = fact("n", KeyState.NEXT)
RETIRING = fact("r", KeyState.RETIRING)
RETIRED = fact("d", KeyState.RETIRED)


@pytest.mark.parametrize(
    ("keys", "step", "earliest", "kids"),
    [
        pytest.param((ACTIVE,), Step.PUBLISH, NOW, (), id="one key: publish the next"),
        pytest.param((ACTIVE, NEXT), Step.ACTIVATE, NOW + SETTLE_MS, ("n",), id="published: activate once all know"),
        pytest.param((ACTIVE, RETIRING), Step.RETIRE, NOW + LIFE + 60_000, ("r",), id="retire after the longest life"),
        pytest.param((ACTIVE, RETIRED), Step.DESTROY, NOW + DEAD_LETTER_AGE_MS, ("d",), id="destroy after all else"),
        pytest.param((ACTIVE, RETIRING, NEXT), Step.ACTIVATE, NOW + SETTLE_MS, ("n",), id="a second one catches up"),
        pytest.param((ACTIVE, RETIRING, RETIRED), Step.RETIRE, NOW + LIFE + 60_000, ("r",), id="retire before destroy"),
        pytest.param((fact("l", KeyState.COMPROMISED),), Step.PUBLISH, NOW, (), id="nothing left: publish at once"),
        pytest.param((fact("l", KeyState.COMPROMISED), NEXT), Step.ACTIVATE, NOW, ("n",), id="the next one saves"),
        pytest.param(
            (ACTIVE, fact("p", KeyState.ACTIVE, until=NOW + 5)), Step.RETIRE, NOW + 5 + LIFE + 60_000, ("p",),
            id="a planned end counts from its time",
        ),
        pytest.param(
            (fact("p", KeyState.ACTIVE, until=NOW - 1), NEXT), Step.ACTIVATE, NOW, ("n",), id="a planned end is over",
        ),
    ],
)  # fmt: skip
def test_the_one_next_step(keys: tuple[KeyFact, ...], step: Step, earliest: int, kids: tuple[str, ...]) -> None:
    plan = planned(*keys)

    assert (plan.step, plan.earliest_ms, plan.kids) == (step, earliest, kids)
    assert plan.is_due(now_ms=earliest)
    assert not plan.is_due(now_ms=earliest - 1)


def test_both_roles_go_together_and_the_later_one_decides() -> None:
    keys = [replace(key, role=role) for key in (ACTIVE, NEXT) for role in ("sign", "enc")]
    late = [*keys, fact("m", KeyState.NEXT, role="enc", since=NOW + 5)]

    assert planned(*keys).kids == ("n", "n")
    assert planned(*late).earliest_ms == NOW + 5 + SETTLE_MS


def test_haste_is_for_the_role_that_has_no_key_left() -> None:
    lost = fact("l", KeyState.COMPROMISED)
    other = (replace(ACTIVE, role="enc"), fact("e", KeyState.NEXT, role="enc"))

    assert planned(lost, NEXT, *other) == Plan(step=Step.ACTIVATE, earliest_ms=NOW, kids=("n",), is_urgent=True)


def test_retired_keys_are_destroyed_one_by_one_as_their_time_comes() -> None:
    early = fact("x", KeyState.RETIRED, since=NOW - DEAD_LETTER_AGE_MS - 5)

    assert planned(ACTIVE, RETIRED, early) == Plan(step=Step.DESTROY, earliest_ms=NOW - 5, kids=("x",))


def test_a_new_rotation_may_begin_while_old_keys_wait_only_when_asked() -> None:
    assert planned(ACTIVE, RETIRED).step is Step.DESTROY
    assert planned(ACTIVE, RETIRED, begin=True).step is Step.PUBLISH


def test_keys_are_kept_for_the_replay_window_whatever_the_age_of_dead_letters() -> None:
    timing = Timing(max_lifetime_ms=LIFE, dead_letter_age_ms=1)

    assert plan_rotation([ACTIVE, RETIRED], timing, now_ms=NOW).earliest_ms == NOW + REPLAY_WINDOW_MS


def test_a_whole_rotation_comes_back_to_its_beginning() -> None:
    steps: list[Step] = []
    keys, now = [fact("k0", KeyState.ACTIVE)], NOW
    for _ in range(5):
        plan = plan_rotation(keys, TIMING, now_ms=now)
        steps.append(plan.step)
        now = plan.earliest_ms
        keys = list(taken(keys, plan, now))

    assert steps == [Step.PUBLISH, Step.ACTIVATE, Step.RETIRE, Step.DESTROY, Step.PUBLISH]


def taken(keys: list[KeyFact], plan: Plan, now: int) -> list[KeyFact]:
    """Return the keys after a step."""
    match plan.step:
        case Step.PUBLISH:
            return [*keys, fact(f"k{now}", KeyState.NEXT, since=now)]
        case Step.ACTIVATE:
            old = [replace(key, state=KeyState.RETIRING, since_ms=now) for key in keys if key.kid not in plan.kids]
            return old + [replace(key, state=KeyState.ACTIVE, since_ms=now) for key in keys if key.kid in plan.kids]
        case Step.RETIRE:
            return [replace(key, state=KeyState.RETIRED, since_ms=now) if key.kid in plan.kids else key for key in keys]
        case Step.DESTROY:
            return [key for key in keys if key.kid not in plan.kids]
