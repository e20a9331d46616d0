"""The inbox's state table, complete."""

from itertools import product

import pytest

from messaging.core.inbox import Decision, Replaying, RowState, judge

IN_WINDOW = Replaying(in_window=True)
TOO_OLD = Replaying(in_window=False)
FORCED = Replaying(in_window=False, force=True)
WAYS = (None, IN_WINDOW, TOO_OLD, FORCED)

RUN, DEFER, DROP, REFUSE = Decision.RUN, Decision.DEFER, Decision.DROP, Decision.REFUSE
#                              delivery, in window, too old, forced
TABLE = {
    RowState.ABSENT: (RUN, RUN, REFUSE, RUN),
    RowState.LEASED: (DEFER, REFUSE, REFUSE, REFUSE),
    RowState.LEASE_EXPIRED: (RUN, RUN, RUN, RUN),
    RowState.DONE: (DROP, REFUSE, REFUSE, RUN),
    RowState.FAILED: (DROP, RUN, RUN, RUN),
}


@pytest.mark.parametrize(
    ("state", "replay", "expected"),
    [(state, way, row[column]) for state, row in TABLE.items() for column, way in enumerate(WAYS)],
)
def test_the_same_bytes_run_as_the_table_says(state: RowState, replay: Replaying | None, expected: Decision) -> None:
    assert judge(state, same_leaf=True, replay=replay) is expected


def test_the_table_names_every_state() -> None:
    assert set(TABLE) == set(RowState)


@pytest.mark.parametrize(("state", "replay"), list(product(RowState, WAYS)))
def test_other_bytes_never_run_under_a_recorded_id(state: RowState, replay: Replaying | None) -> None:
    assert judge(state, same_leaf=False, replay=replay) is Decision.OTHER_BYTES
