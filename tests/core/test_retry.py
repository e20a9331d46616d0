"""The retry policy as a table: data in, data out."""

import math
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from messaging.core.fault import Fault
from messaging.core.retry import ATTEMPTS_MAX, Bury, Retry, RetryPolicy
from messaging.errors import ConfigurationError, InvalidPayloadError, Reject, RetryLater

DEFAULT = RetryPolicy()
NO_LADDER = RetryPolicy(immediate=2, delays_s=())
NEVER = RetryPolicy(immediate=0, delays_s=())
LADDER_ONLY = RetryPolicy(immediate=0, delays_s=(1.0, 5.0))
JITTER = 0.5


def fault(attempts: int, *, permanent: bool = False, retry_after_s: float | None = None) -> Fault:
    return Fault(error="X", reason="x", attempts=attempts, permanent=permanent, retry_after_s=retry_after_s)


def rung(delay_s: float) -> Retry:
    return Retry(delay_s=delay_s)


AT_ONCE = Retry(delay_s=0.05, in_process=True)


@pytest.mark.parametrize(
    ("policy", "failed", "expected"),
    [
        (DEFAULT, fault(1), AT_ONCE),
        (DEFAULT, fault(2), rung(1.0)),
        (DEFAULT, fault(3), rung(5.0)),
        (DEFAULT, fault(4), rung(30.0)),
        (DEFAULT, fault(5), rung(120.0)),
        (DEFAULT, fault(6), rung(600.0)),
        (DEFAULT, fault(7), Bury(reason="7 attempts")),
        (DEFAULT, fault(1_000), Bury(reason="1000 attempts")),
        # What can never succeed is not tried again, whatever the handler wishes.
        (DEFAULT, fault(1, permanent=True), Bury(reason="permanent")),
        (DEFAULT, fault(1, permanent=True, retry_after_s=1.0), Bury(reason="permanent")),
        # A wish: the first rung that is not shorter, also on the first attempt; the longest when none is.
        (DEFAULT, fault(1, retry_after_s=0.0), rung(1.0)),
        (DEFAULT, fault(1, retry_after_s=1.0), rung(1.0)),
        (DEFAULT, fault(1, retry_after_s=1.1), rung(5.0)),
        (DEFAULT, fault(6, retry_after_s=31.0), rung(120.0)),
        (DEFAULT, fault(2, retry_after_s=86_400.0), rung(600.0)),
        (DEFAULT, fault(2, retry_after_s=600.0), rung(600.0)),
        (DEFAULT, fault(2, retry_after_s=600.1), rung(600.0)),
        (DEFAULT, fault(2, retry_after_s=math.inf), rung(600.0)),
        (DEFAULT, fault(2, retry_after_s=math.nan), rung(600.0)),
        (DEFAULT, fault(2, retry_after_s=-1.0), rung(1.0)),
        (DEFAULT, fault(7, retry_after_s=1.0), Bury(reason="7 attempts")),
        # Without a ladder everything happens in the process, wishes included.
        (NO_LADDER, fault(1), AT_ONCE),
        (NO_LADDER, fault(2), AT_ONCE),
        (NO_LADDER, fault(3), Bury(reason="3 attempts")),
        (NO_LADDER, fault(1, retry_after_s=5.0), AT_ONCE),
        (NEVER, fault(1), Bury(reason="1 attempts")),
        (NEVER, fault(1, retry_after_s=5.0), Bury(reason="1 attempts")),
        (LADDER_ONLY, fault(1), rung(1.0)),
        (LADDER_ONLY, fault(2), rung(5.0)),
        (LADDER_ONLY, fault(3), Bury(reason="3 attempts")),
    ],
)
def test_a_failure_leads_to_the_next_step_of_the_ladder(
    policy: RetryPolicy, failed: Fault, expected: Retry | Bury
) -> None:
    assert policy.decide(failed, jitter=JITTER) == expected


@given(
    st.integers(0, 5),
    st.lists(st.floats(0.001, 86_400.0), max_size=6).map(sorted).map(tuple),
    st.integers(1, 20),
    st.one_of(st.none(), st.floats(0.0, 1e9)),
    st.floats(0.0, 0.999),
)
def test_whatever_the_policy_a_retry_uses_a_declared_rung_and_ends(
    immediate: int, delays_s: tuple[float, ...], attempts: int, wish_s: float | None, jitter: float
) -> None:
    policy = RetryPolicy(immediate=immediate, delays_s=delays_s)

    decision = policy.decide(fault(attempts, retry_after_s=wish_s), jitter=jitter)

    match decision:
        case Bury():
            assert attempts >= policy.attempts
        case Retry(in_process=True):
            assert attempts < policy.attempts
            assert 0 <= decision.delay_s < 0.1
        case Retry():
            assert attempts < policy.attempts
            assert decision.delay_s in delays_s
            assert round(decision.delay_s * 1000) in policy.rungs_ms


@pytest.mark.parametrize(
    ("policy", "attempt", "expected"),
    [(DEFAULT, 1, 0.05), (DEFAULT, 2, 1.0), (DEFAULT, 6, 600.0), (LADDER_ONLY, 1, 1.0), (NO_LADDER, 2, 0.05)],
)
def test_the_delay_is_a_function_of_the_attempt(policy: RetryPolicy, attempt: int, expected: float) -> None:
    assert policy.delay_s(attempt, jitter=JITTER) == expected


@pytest.mark.parametrize(("policy", "attempt"), [(DEFAULT, 0), (DEFAULT, 7), (NEVER, 1), (NO_LADDER, 3)])
def test_an_attempt_that_nothing_follows_has_no_delay(policy: RetryPolicy, attempt: int) -> None:
    with pytest.raises(ValueError, match=f"attempt {attempt} has no delay"):
        policy.delay_s(attempt, jitter=JITTER)


def test_the_rungs_are_what_topology_declares() -> None:
    assert DEFAULT.rungs_ms == (1_000, 5_000, 30_000, 120_000, 600_000)
    assert DEFAULT.attempts == 7
    assert NEVER.rungs_ms == ()
    assert NEVER.attempts == 1


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"immediate": -1}, "immediate=-1"),
        ({"immediate": ATTEMPTS_MAX}, "use 0 to 998 in all"),
        ({"immediate": ATTEMPTS_MAX - 1, "delays_s": (1.0,)}, "use 0 to 998 in all"),
        ({"delays_s": (5.0, 1.0)}, "must ascend"),
        ({"delays_s": (0.0,)}, "each rung takes"),
        ({"delays_s": (-1.0,)}, "each rung takes"),
        ({"delays_s": (86_401.0,)}, "each rung takes"),
        ({"delays_s": (float("nan"),)}, "each rung takes"),
    ],
)
def test_a_policy_that_cannot_be_kept_is_refused(values: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(words)):
        RetryPolicy(**values)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (KeyError("k"), True),
        (OSError("o"), False),
        (ConnectionResetError("subclasses count"), False),
        (FileNotFoundError("permanent wins"), True),
        (ValueError("nothing declared"), None),
    ],
)
def test_exceptions_may_be_declared(error: BaseException, expected: bool | None) -> None:
    policy = RetryPolicy(transient=(OSError,), permanent=(KeyError, FileNotFoundError))

    assert policy.is_permanent(error) is expected


@pytest.mark.parametrize("signal", [Reject("no"), RetryLater(5.0)])
def test_no_declared_class_overrides_what_a_handler_says_itself(signal: Exception) -> None:
    assert RetryPolicy(transient=(Exception,)).is_permanent(signal) is None
    assert RetryPolicy(permanent=(Exception,)).is_permanent(signal) is None
    assert RetryPolicy(transient=(Exception,)).is_permanent(InvalidPayloadError("declared")) is False


@pytest.mark.parametrize("values", [{"break_after": -1}, {"break_for_s": 0.0}, {"break_for_s": 601.0}])
def test_a_breaker_that_makes_no_sense_is_refused(values: dict[str, float]) -> None:
    with pytest.raises(ConfigurationError, match="break_after"):
        RetryPolicy(**values)  # type: ignore[arg-type]
