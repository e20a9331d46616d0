"""The inbox's state table as a pure function: may these bytes run now (docs/trust.md, "Duplicates and replays").

Redelivery, an attacker's duplicate and a publisher's retry are byte-identical; only recorded state can tell. Bytes with
another leaf never run under a recorded id.

    state            fresh or duplicate delivery      an operator's replay
    absent           run                              run inside the replay window, else only with force
    leased, live     defer                            refuse
    leased, expired  take over                        take over
    done             drop                             refuse, unless force is granted
    failed           drop                             run
"""

from dataclasses import dataclass
from enum import Enum

__all__ = ["Decision", "Replaying", "RowState", "judge"]


class RowState(Enum):
    """What the inbox holds for one (service, sender, message id)."""

    ABSENT = "absent"
    LEASED = "leased"
    LEASE_EXPIRED = "lease_expired"
    DONE = "done"
    FAILED = "failed"


class Decision(Enum):
    """What to do with the delivery."""

    RUN = "run"
    DEFER = "defer"
    DROP = "drop"
    REFUSE = "refuse"
    OTHER_BYTES = "other_bytes"


@dataclass(frozen=True, slots=True, kw_only=True)
class Replaying:
    """That the delivery is an operator's replay, and what it may do.

    Attributes:
        in_window: The original was issued inside the replay window.
        force: The operator asked for force and policy grants it.
    """

    in_window: bool
    force: bool = False


def judge(state: RowState, *, same_leaf: bool, replay: Replaying | None = None) -> Decision:
    """Return what the state table says.

    Args:
        state: The row's state.
        same_leaf: Whether the row was made for these very bytes; True for an absent row.
        replay: Set for an operator's replay.
    """
    if not same_leaf:
        return Decision.OTHER_BYTES
    if replay is None:
        return _FIRST[state]
    if state is RowState.ABSENT:
        return Decision.RUN if replay.in_window or replay.force else Decision.REFUSE
    if state is RowState.DONE:
        return Decision.RUN if replay.force else Decision.REFUSE
    return _REPLAYED[state]


_FIRST = {
    RowState.ABSENT: Decision.RUN,
    RowState.LEASED: Decision.DEFER,
    RowState.LEASE_EXPIRED: Decision.RUN,
    RowState.DONE: Decision.DROP,
    RowState.FAILED: Decision.DROP,
}
_REPLAYED = {
    RowState.LEASED: Decision.REFUSE,
    RowState.LEASE_EXPIRED: Decision.RUN,
    RowState.FAILED: Decision.RUN,
}
