"""Arguments and filters of the `dead` verbs."""

import pytest
import typer

from messaging.cli.dead_select import age_s, said_why, selection_of, target_of
from messaging.cli.exits import UsageError

KNOWN = ("orders", "users")


def test_without_arguments_every_service_of_the_bundle_is_meant() -> None:
    target = target_of([], KNOWN)

    assert target.services == KNOWN
    assert target.ids == frozenset()
    assert not target.is_named


def test_services_and_ids_may_stand_together() -> None:
    target = target_of(["3FA9", "orders", "beef00"], KNOWN)

    assert target.services == ("orders",)
    assert target.ids == {"3fa9", "beef00"}
    assert target.is_named


@pytest.mark.parametrize("argument", ["order", "3fa", "3fa9\n", "xyz1"])
def test_what_is_neither_service_nor_id_is_refused_with_what_there_is(argument: str) -> None:
    with pytest.raises(UsageError, match="orders, users"):
        target_of([argument], KNOWN)


@pytest.mark.parametrize(
    ("text", "seconds"), [("30", 30), ("30s", 30), ("10m", 600), ("10min", 600), ("1.5h", 5_400), ("2D", 172_800)]
)
def test_ages(text: str, seconds: float) -> None:
    assert age_s(text) == seconds


@pytest.mark.parametrize("text", ["", "m", "-1m", "1 week", "1e9", "\u0661m"])
def test_what_is_no_age_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(UsageError, match="10m"):
        age_s(text)


def test_filters_become_a_selection() -> None:
    selection = selection_of(
        name="orders.*", error="ValueError", fingerprint="ab", sender="users", older_than="10m", younger_than="1d"
    )

    assert (selection.name, selection.error, selection.fingerprint) == ("orders.*", "ValueError", "ab")
    assert (selection.sender, selection.older_than_s, selection.younger_than_s) == ("users", 600, 86_400)


@pytest.mark.parametrize("reason", ["", " ", "\t\n"])
def test_a_reason_that_says_nothing_is_refused(reason: str) -> None:
    with pytest.raises(typer.BadParameter, match="say why"):
        said_why(reason)


def test_a_reason_stays_as_it_was_said() -> None:
    assert said_why(" fixed in 1.4") == " fixed in 1.4"
