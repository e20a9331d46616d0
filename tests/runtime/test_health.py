from messaging.runtime.health import Health, judge_health
from messaging.transports.base import LinkState, TransportState

CONNECTED = TransportState(link=LinkState.CONNECTED)


def judged(
    *,
    is_started: bool = True,
    link: TransportState = CONNECTED,
    consumers: dict[str, bool] | None = None,
    trouble: str | None = None,
    lag: str | None = None,
) -> Health:
    return judge_health(
        is_started=is_started,
        link=link,
        consumers=consumers or {"q": True},
        trouble=trouble,
        lag=lag,
        details={"running": 3},
    )


def test_all_well_is_ready() -> None:
    health = judged()

    assert health.is_live
    assert health.is_ready
    assert health.problems == ()
    assert health.details == {"link": "connected", "dropped_acks": 0, "running": 3}


def test_what_does_not_run_is_live_and_not_ready() -> None:
    health = judged(is_started=False, link=TransportState(link=LinkState.CLOSED))

    assert (health.is_live, health.is_ready) == (True, False)
    assert health.problems == ("the service does not run (starting, stopping or stopped)",)


def test_a_problem_of_the_link_is_shown_in_its_own_words() -> None:
    link = TransportState(link=LinkState.CONNECTING, problem="no broker at 127.0.0.1; start one", dropped_acks=2)

    health = judged(link=link)

    assert health.problems == ("no broker at 127.0.0.1; start one",)
    assert health.details["dropped_acks"] == 2


def test_a_link_that_is_not_there_is_a_problem_even_without_words() -> None:
    assert judged(link=TransportState(link=LinkState.BLOCKED)).problems == (
        "the link to the broker is blocked; see `messaging doctor`",
    )


def test_a_queue_that_is_not_fed_is_named() -> None:
    health = judged(consumers={"messaging.orders.commands": False, "messaging.orders.events": True})

    assert health.problems == ("nothing is delivered from messaging.orders.commands; see `messaging doctor`",)


def test_held_deliveries_are_told_with_their_reason() -> None:
    assert judged(trouble="no key").problems == ("deliveries are held: no key",)


def test_a_trust_bundle_that_stays_behind_makes_it_unready() -> None:
    health = judged(lag="version 1 is in force here, others have version 2")

    assert not health.is_ready
    assert health.problems == ("version 1 is in force here, others have version 2",)


def test_all_problems_are_told() -> None:
    health = judged(is_started=False, consumers={"q": False}, trouble="no key")

    assert len(health.problems) == 3
