"""Messages of the chaos services. The id of an operation is the id of its message, so its traces can be matched."""

from uuid import UUID

from messaging import Command, Event, Request

__all__ = [
    "Applied",
    "Apply",
    "Ask",
    "AskExtra",
    "Enter",
    "Extra",
    "Kill",
    "NewerApply",
    "Spoil",
    "Stall",
    "Transfer",
]


class Apply(Command, name="chaos.apply"):
    """Note one effect; the first `fails` runs of it fail."""

    op_id: UUID
    fails: int = 0


class NewerApply(Command, name="chaos.apply"):
    """What callers of the second version make of `Apply`: the same, with a field that older replicas do not know."""

    op_id: UUID
    fails: int = 0
    remark: str = "of the second version"


class Spoil(Command, name="chaos.spoil"):
    """Never succeeds: it belongs into the dead letters, once."""

    op_id: UUID


class Kill(Command, name="chaos.kill"):
    """Ends the process that handles it, every time."""

    op_id: UUID


class Stall(Command, name="chaos.stall"):
    """Note one effect and take long; `blocks`: nothing else runs in that process meanwhile."""

    op_id: UUID
    seconds: float
    blocks: bool


class Transfer(Command, name="chaos.transfer"):
    """Move money from one account to another."""

    op_id: UUID
    source: int
    target: int
    cents: int


class Extra(Command, name="chaos.extra"):
    """Note one effect; only replicas of the second version know it."""

    op_id: UUID


class Enter(Command, name="books.enter", key="account"):
    """Note one effect in the order of its account; the first `fails` runs of it fail, and its followers wait."""

    op_id: UUID
    account: str
    number: int
    fails: int = 0


class Applied(Event, name="chaos.applied"):
    """An effect was noted."""

    op_id: UUID


class Ask(Request[str], name="chaos.ask"):
    """Note one effect and answer who did."""

    op_id: UUID


class AskExtra(Request[str], name="chaos.ask_extra"):
    """Note one effect and answer who did; only replicas of the second version know it."""

    op_id: UUID
