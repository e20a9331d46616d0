"""Which error ends with which code."""

import pytest

from messaging.cli.exits import Exit, NothingMatchedError, UsageError, exit_of, known_error
from messaging.errors import (
    ConfigurationError,
    ConnectionLostError,
    InvalidPayloadError,
    PolicyError,
    Reject,
    TopologyConflictError,
    UnroutableError,
)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConfigurationError("x"), Exit.CONFIGURATION),
        (UsageError("x"), Exit.CONFIGURATION),
        (InvalidPayloadError("x"), Exit.CONFIGURATION),
        (ConnectionLostError("x"), Exit.BROKER),
        (PolicyError("x"), Exit.REFUSED),
        (NothingMatchedError("x"), Exit.NOTHING_MATCHED),
        (TopologyConflictError("x"), Exit.FAILURE),
        (UnroutableError("x", routing_key="a.b.v1"), Exit.FAILURE),
        (PermissionError("x"), Exit.FAILURE),
    ],
)
def test_codes(error: Exception, code: Exit) -> None:
    assert exit_of(error) is code


def test_a_group_of_expected_errors_is_explained_by_its_first() -> None:
    first = ConnectionLostError("x")

    assert known_error(ExceptionGroup("g", [ExceptionGroup("h", [first]), Reject("y")])) is first


def test_a_defect_inside_a_group_keeps_its_traceback() -> None:
    assert known_error(ExceptionGroup("g", [ConnectionLostError("x"), KeyError("y")])) is None
    assert known_error(KeyError("y")) is None
