"""How dead letters look, also those of which nothing is proven."""

import json

import pytest

from messaging.cli.dead_show import letter_record, show_letter, show_letters
from messaging.cli.render import json_text
from messaging.core.dead_letter import DeadLetter
from messaging.core.fault import Attempt, Cause, Fault
from tests.cli.test_render import harmful

FORGED = DeadLetter(
    id="ab" * 16,
    service="orders",
    is_verified=False,
    fault=Fault(error="unverified", reason="the signature does not hold \x1b[31m", attempts=0),
    why_not="unverified: the signature does not hold",
)
FAILED = DeadLetter(
    id="cd" * 16,
    service="orders",
    is_verified=True,
    fault=Fault(
        error="orders.out_of_stock",
        reason="none left" * 40,
        fields={"sku": "x\x07"},
        chain=(Cause(error="KeyError", reason="'sku'"),),
        trace="handlers.py:12 in place_order\nstore.py:3 in take",
        attempts=6,
        history=(Attempt(at_ms=0, error="KeyError\x1b"), Attempt(at_ms=61_000, error="orders.out_of_stock")),
    ),
    message_name="orders.place_order",
    sender="users",
    payload={"sku": "x\x1b"},
    is_replayable=True,
)


def test_what_is_not_proven_says_so_first(capsys: pytest.CaptureFixture[str]) -> None:
    show_letter(FORGED)

    shown = capsys.readouterr().out
    assert "Nothing below is proven" in shown.splitlines()[1]
    assert "not readable" in shown
    assert harmful(shown) == set()


def test_causes_fields_trace_and_payload_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    show_letter(FAILED)

    shown = capsys.readouterr().out
    for words in (
        "because",
        "KeyError: 'sku'",
        "after 6 attempts, 0 replays",
        "failed  1970-01-01 00:01:01Z  orders.out_of_stock",
        '"sku": "x\\u0007"',
        "store.py:3 in take",
        '"sku": "x\\u001b"',
        "possible",
    ):
        assert words in shown
    assert harmful(shown) == set()


def test_a_long_reason_is_cut_in_tables_alone(capsys: pytest.CaptureFixture[str]) -> None:
    show_letters([FAILED])
    assert "…" in capsys.readouterr().out

    show_letter(FAILED)
    assert "…" not in capsys.readouterr().out


def test_an_unreadable_payload_says_why(capsys: pytest.CaptureFixture[str]) -> None:
    show_letter(
        DeadLetter(id="ef" * 16, service="orders", is_verified=True, fault=FAILED.fault, unreadable_because="no key")
    )

    assert "not readable: no key" in capsys.readouterr().out


def test_records_hold_payloads_only_where_asked_for() -> None:
    assert "payload" not in letter_record(FAILED)
    assert json.loads(json_text(letter_record(FAILED, is_full=True)))["payload"] == {"sku": "x\x1b"}
