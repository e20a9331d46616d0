"""`PartitionIntake`: one partition of a service's commands. Those of one key run one after the other, in their order.

Rules (docs/topology.md, "Partitions"):

1. The broker feeds one consumer of the queue at a time. Slots are lanes: serial within, side by side across.
2. What fails stays where it is, unsettled, until its next try; its lane waits, the others go on. So a crash at any
   moment returns everything in its order. What is buried lets its followers go on.
3. Nothing is ever given back alone, and the prefetch never changes: both would let later messages overtake earlier ones
   on RabbitMQ 3.10. What cannot go on returns with the channel, all of it at once.
4. When the channel is lost, what has not started is forgotten: it comes again, here or at another replica.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Final

import structlog

from messaging.core.ambient import Ambient
from messaging.core.lanes import Lanes, Place
from messaging.core.partition import partition_of
from messaging.core.retry import Bury, Defer, Move, Retry, RetryPolicy, Verdict
from messaging.errors import ConfigurationError, TransportError
from messaging.runtime.admission import SUSPECT_DELIVERIES
from messaging.runtime.consumer import FUSE_DELIVERIES, Consumer, GivenBack
from messaging.runtime.handling import Handling, Part
from messaging.runtime.held import HeldDelivery
from messaging.runtime.parts import Parts
from messaging.runtime.router import Router
from messaging.runtime.seams import Later
from messaging.runtime.settle import Settler
from messaging.runtime.tasks import Tasks
from messaging.transports.base import Delivery, Subscription, Transport

__all__ = ["PARTITION_PREFETCH", "PartitionIntake", "Sorting", "check_patience", "partitioned"]

# The same for every replica and for ever, hence no setting: RabbitMQ 3.10 keeps the order of what comes back only as
# long as the next consumer takes as many at once as the one before held (docs/topology.md, "What the versions do").
PARTITION_PREFETCH: Final = 64
# Below RabbitMQ's consumer_timeout of 30 minutes, after which it closes the channel of whoever holds a message longer.
PATIENCE_S: Final = 20 * 60.0
_RENEW_WAIT_S: Final = 90.0
_RENEW_PAUSE_S: Final = 1.0

SlotOf = Callable[[bytes], int | None]
"""Returns the slot that a message claims; nothing is proven by it."""

log = structlog.get_logger()


def check_patience(router: Router, default: RetryPolicy) -> None:
    """Check that no command with a key may hold its lane longer than the broker lets a consumer hold a message.

    Raises:
        ConfigurationError: a policy waits longer in all; names handler and remedy.
    """
    for handler in router.handlers:
        policy = handler.retry or default
        if handler.is_keyed and sum(policy.delays_s) > PATIENCE_S:
            raise ConfigurationError(
                f"{handler.name} waits {sum(policy.delays_s):g} s between its tries, and all of its key with it: "
                f"shorten delays_s of its RetryPolicy to {PATIENCE_S:g} s in all, or leave the key out"
            )


def partitioned(
    parts: Parts, consumer: Consumer, settler: Settler, *, width: int, later: Later | None = None
) -> tuple["Sorting", tuple["PartitionIntake", ...]]:
    """Return what consumes the partitions of a service, and what stands before the consumer of its plain queue."""
    names, service, subscriptions = parts.names, parts.identity, parts.subscriptions
    queues = names.partitions(service, subscriptions)
    slot_of = parts.opener.peek_slot
    intakes = tuple(
        PartitionIntake(
            queue,
            home=names.queue(service, Part.COMMANDS.word),
            transport=parts.transport,
            consumer=consumer,
            settler=settler,
            slot_of=slot_of,
            ambient=parts.ambient,
            width=width,
            later=later,
        )
        for queue in queues
    )
    return Sorting(consumer, slot_of, queues=queues), intakes


class Sorting:
    """Stands before the consumer of the plain queue: what has a key goes on into its partition, unread.

    Replays come here, for an operator does not know how many partitions there are, and what was sent before there were
    any.
    """

    def __init__(self, consumer: Consumer, slot_of: SlotOf, *, queues: Sequence[str]) -> None:
        self._consumer = consumer
        self._slot_of = slot_of
        self._queues = queues

    @property
    def stopping(self) -> asyncio.Event:
        """Set once the service stops."""
        return self._consumer.stopping

    async def process(self, handling: Handling) -> Verdict:
        """Return where it goes, or what becomes of it here; raises what `Consumer.process` does."""
        slot = self._slot_of(handling.delivery.body)
        if slot is None:
            return await self._consumer.process(handling)
        return Move(queue=self._queues[partition_of(slot, len(self._queues))])


class PartitionIntake:
    """Takes deliveries of one partition in and sees each to its verdict.

    Args:
        queue: The partition.
        home: The plain queue of commands, which replays name.
        transport: Feeds it.
        consumer: Decides.
        settler: Carries out.
        slot_of: Reads the slot of a message.
        ambient: Clock.
        width: How many may run at once.
        later: Calls a function after so many seconds.
    """

    part = Part.COMMANDS

    def __init__(
        self,
        queue: str,
        *,
        home: str,
        transport: Transport,
        consumer: Consumer,
        settler: Settler,
        slot_of: SlotOf,
        ambient: Ambient,
        width: int,
        later: Later | None = None,
    ) -> None:
        self.queue = queue
        self._home = home
        self._transport = transport
        self._consumer = consumer
        self._settler = settler
        self._slot_of = slot_of
        self._ambient = ambient
        self._later = asyncio.get_running_loop().call_later if later is None else later
        self._lanes: Lanes[Delivery] = Lanes(min(width, PARTITION_PREFETCH))
        # Which channel this is: what an earlier one brought comes again.
        self._channel = 0
        self._resters: set[asyncio.Event] = set()
        self._is_first = True
        self._is_fed = False
        self._is_stopping = False
        self._is_renewing = False
        self._running = Tasks()
        self._chores = Tasks()
        self._subscription: Subscription | None = None

    @property
    def is_live(self) -> bool:
        """Whether the broker is known to feed it, or to let it stand by."""
        return self._subscription is not None and self._subscription.is_live

    @property
    def is_fed(self) -> bool:
        """Whether the broker feeds it, and not another replica."""
        return self._is_fed

    @property
    def is_waiting(self) -> bool:
        """Whether anything waits here for its next try, which would begin anew elsewhere."""
        return bool(self._resters)

    @property
    def running(self) -> int:
        """How many deliveries are being handled; those that wait for their next try are not."""
        return self._lanes.running

    @property
    def resting(self) -> int:
        """How many deliveries it holds while none of them runs: all wait for a next try, or behind one that does."""
        return 0 if self._lanes.running else self._lanes.held

    async def start(self) -> None:
        """Begin, or stand by until the broker feeds it."""
        self._subscription = await self._transport.consume(
            self.queue, self._arrived, prefetch=PARTITION_PREFETCH, on_lost=self._lose
        )

    async def stop(self, *, timeout_s: float) -> bool:
        """Drain what runs, then return the rest at once and in its order; returns whether all of it ended in time."""
        self._is_stopping = True
        self._wake()
        await self._chores.cancel()
        drained = await self._running.drain(timeout_s=timeout_s)
        await self._running.cancel()
        if self._subscription is not None:
            await self._subscription.release()
        return drained

    def _arrived(self, delivery: Delivery) -> None:
        """Put it into its lane; called by the transport, so it neither blocks nor raises."""
        if self._is_stopping:
            # Not given back, which would bring it here again and again: it returns with the channel.
            return
        count = delivery.delivery_count
        if count >= FUSE_DELIVERIES and not self._is_first:
            # Everything behind what kills comes back as often. Only the oldest can be what ran alone when it happened.
            delivery = HeldDelivery(delivery, count_max=FUSE_DELIVERIES - 1)
        self._is_first, self._is_fed = False, True
        self._lanes.put(self._slot_of(delivery.body), delivery, is_suspect=count >= SUSPECT_DELIVERIES)
        self._begin()

    def _begin(self) -> None:
        while not (self._is_stopping or self._is_renewing) and (place := self._lanes.next()) is not None:
            self._running.spawn(self._handle(place), name=f"{self.queue} {place.item.message_id}")

    def _lose(self) -> None:
        """Forget what has not started; called by the transport before anything of it comes again."""
        self._lanes.lose()
        self._is_first = True
        self._is_fed = False
        self._channel += 1
        self._wake()

    def _wake(self) -> None:
        for rester in self._resters:
            rester.set()

    async def _handle(self, place: Place[Delivery]) -> None:
        try:
            await self._try_until_settled(place)
        finally:
            self._lanes.done(place)
            self._begin()

    async def _try_until_settled(self, place: Place[Delivery]) -> None:
        channel = self._channel
        delivery: Delivery = HeldDelivery(place.item)
        since_s = self._ambient.monotonic_s()
        while True:
            handling = Handling(delivery, Part.COMMANDS, home=self._home)
            verdict = await self._tried(handling)
            if verdict is None:
                return
            if isinstance(verdict, Retry) and self._ambient.monotonic_s() + verdict.delay_s - since_s > PATIENCE_S:
                verdict = Bury(reason=f"its key waited for {PATIENCE_S:g} s")
            if not isinstance(verdict, Retry | Defer):
                await self._settled(handling, verdict)
                return
            await self._settler.postpone(handling, verdict)
            await self._rest(place, verdict.delay_s)
            if self._is_stopping or self._channel != channel:
                # It comes again, here or elsewhere.
                return
            delivery = HeldDelivery(
                place.item,
                attempt=handling.attempt + 1 if isinstance(verdict, Retry) else delivery.attempt,
                first_failed_ms=delivery.first_failed_ms or self._ambient.now_ms(),
            )

    async def _tried(self, handling: Handling) -> Verdict | None:
        """Return the verdict of one run, or None when it returns with its channel instead."""
        try:
            return await self._consumer.process(handling)
        except GivenBack:
            await self._settler.give_back(handling)
            self._renew()
            return None
        except asyncio.CancelledError:
            await self._settler.give_back(handling)
            raise
        except BaseException:
            await self._settler.abandon(handling)
            raise

    async def _settled(self, handling: Handling, verdict: Verdict) -> None:
        try:
            await self._settler.settle(handling, verdict, stopping=self._consumer.stopping)
        except asyncio.CancelledError:
            await self._settler.give_back(handling)
            raise
        except BaseException:
            await self._settler.abandon(handling)
            raise

    async def _rest(self, place: Place[Delivery], delay_s: float) -> None:
        """Wait for the next try, or until there is none here: the channel is lost or the end has come."""
        woken = asyncio.Event()
        timer = self._later(delay_s, woken.set)
        self._resters.add(woken)
        self._lanes.rest(place)
        self._begin()
        try:
            await woken.wait()
        finally:
            timer.cancel()
            self._resters.discard(woken)
            self._lanes.resume(place)

    def hand_over(self) -> None:
        """Return everything in its order once what runs has ended, and stand by."""
        self._renew()

    def _renew(self) -> None:
        if not (self._is_stopping or self._is_renewing):
            self._is_renewing = True
            self._chores.spawn(self._renewed(), name=f"{self.queue} renewal")

    async def _renewed(self) -> None:
        """Return everything that is unsettled in its order, and begin again: elsewhere it may do better."""
        try:
            self._lose()
            await self._running.drain(timeout_s=_RENEW_WAIT_S)
            if self._subscription is not None:
                await self._subscription.release()
            self._lose()
            while True:
                try:
                    await self.start()
                except TransportError as error:
                    log.warning("consumer.lost", queue=self.queue, reason=str(error))
                    await asyncio.sleep(_RENEW_PAUSE_S)
                else:
                    return
        finally:
            self._is_renewing = False
            self._begin()
