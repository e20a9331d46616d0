import argparse
import asyncio

from benchmarks.keys import ORDER_PLACED
from benchmarks.load import NOTES, Log, OrderPlaced, PlaceBlob, finished, messages_of
from benchmarks.ours import PlaceOrder
from messaging.core.message import contract_of


class Readings:
    """A clock that goes on by a second with each look, and memory that grows by a MiB."""

    def __init__(self) -> None:
        self.looks = 0

    def __call__(self) -> tuple[float, float, float]:
        self.looks += 1
        return float(self.looks), self.looks / 10, 50.0 + self.looks


def test_a_log_notes_the_start_and_every_twentieth() -> None:
    log = Log(1000, Readings())

    log.begin()
    for _ in range(1000):
        log.count()
    report = log.report()

    assert [note[0] for note in log.notes] == list(range(0, 1001, 1000 // NOTES))
    assert (report["messages"], report["wall_s"], report["rss_mib"]) == (1000, 20.0, 71.0)


def test_a_log_of_one_who_shares_ends_with_its_last_message() -> None:
    log = Log(1000, Readings())

    log.begin()
    for _ in range(7):
        log.count()

    assert log.report()["messages"] == 7


def test_what_is_sent_is_what_was_asked_for() -> None:
    def kind(**options: object) -> tuple[type, int]:
        found = messages_of(argparse.Namespace(**{"blob": None, "event": False, **options}))
        return type(found[0]), len(found[0].content) if isinstance(found[0], PlaceBlob) else 0

    assert kind() == (PlaceOrder, 0)
    assert kind(event=True) == (OrderPlaced, 0)
    assert kind(blob=4096) == (PlaceBlob, 4096)


def test_keys_know_the_event_by_its_name() -> None:
    assert contract_of(OrderPlaced).name == ORDER_PLACED


async def test_a_consumer_ends_with_its_last_message() -> None:
    done = asyncio.Event()
    done.set()

    await finished(Log(1, Readings()), done)
