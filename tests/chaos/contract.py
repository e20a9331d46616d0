"""Messages of the chaos services. The id of an operation is the id of its message, so its traces can be matched."""

from uuid import UUID

from messaging import Command, Event, Request

__all__ = ["Applied", "Apply", "Ask", "Kill", "Spoil", "Stall", "Transfer"]


class Apply(Command, name="chaos.apply"):
    """Note one effect; the first `fails` runs of it fail."""

    op_id: UUID
    fails: int = 0


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


class Applied(Event, name="chaos.applied"):
    """An effect was noted."""

    op_id: UUID


class Ask(Request[str], name="chaos.ask"):
    """Note one effect and answer who did."""

    op_id: UUID
