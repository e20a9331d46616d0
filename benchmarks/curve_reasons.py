"""Why each curve is as it is, in the words of somebody who looked at it; the numbers beside it come from the run."""

from collections.abc import Mapping
from typing import Final

__all__ = ["REASONS"]

REASONS: Final[Mapping[str, str]] = {
    "messages": (
        "Nothing is kept for each message but its id in the inbox, which is bounded, so the ten-thousandth costs what "
        "the first did. Where a short run lies above the line, it is the start: caches, the first data key."
    ),
    "body": (
        "Encrypting, hashing and copying are linear in bytes, and the fixed part of a message is worth some 20 KiB of "
        "them. Bends come from copies: beyond 128 KiB a message takes several AMQP frames, large bodies leave the "
        "processor's cache, and those that are hashed and encrypted beside the event loop pay for the hand-over."
    ),
    "recipients": (
        "A data key is wrapped once for each recipient and then used for many messages, so a further recipient costs "
        "the sender its share of a wrap and a hundred bytes of key block in each message; who receives looks for its "
        "own entry only."
    ),
    "services": (
        "A message needs the keys of its sender and receivers alone, found by name: the number of services is in the "
        "start, where the bundle is read and checked, and in memory. The rules are those of a production, a few for "
        "each service; in bundles of development keys they grow with the square of the services (docs/scaling.md). "
        "What a message costs goes up and down without an order: short runs, each a process of its own, differ by that "
        "much, and what lies off a line here is their noise."
    ),
    "workers": (
        "Not a straight line where cores are few: the workers share them with the broker, which pays as much for a "
        "delivery. They add up until the cores are full, or the queue's own process is."
    ),
    "prefetch": (
        "Not a straight line: with one delivery in flight each waits for the way to the broker and back. Throughput "
        "rises with the prefetch until the worker's core is full; beyond that only the backlog changes its place."
    ),
    "window": (
        "Not a straight line: alone each message waits for the broker's disk and has a signature of its own. With more "
        "in flight the disk is asked once for many, and so is the key, until the sender's core is full."
    ),
    "queues": (
        "A quorum queue writes to a log and asks a majority, a classic one writes alone. Three nodes on one machine "
        "share its cores and its disk, so they show what replication costs, not what three machines can do."
    ),
}
