"""A dead letter, corrected: a new message of the operator's own, checked, under policy, linked to the original."""

import io
import json
from dataclasses import replace
from typing import Any

import pytest

from messaging.cli.dead_edit import EDITED_FROM, _editable, _edited, _envelope, _message, _set
from messaging.cli.exits import UsageError
from messaging.core.dead_letter import DeadLetter
from messaging.core.envelope import Kind
from messaging.core.fault import Fault
from tests.support.dead_shop import bury, clear, dead_ids
from tests.support.installation import Installation
from tests.support.realm import Realm
from tests.support.shop import OrderPlaced, PlaceOrder

REALM = Realm()
MADE = REALM.envelope()
LETTER = DeadLetter(
    id="abcd" * 8,
    service="orders",
    is_verified=True,
    fault=Fault.of(ValueError("no"), MADE, permanent=True),
    leaf=b"\x07" * 32,
    message_name="orders.place_order",
    message_id=MADE.id,
    correlation_id=MADE.correlation_id,
    kind=Kind.COMMAND,
    payload={"number": 1, "note": "x"},
)


class TestTheCorrection:
    @pytest.mark.parametrize(
        ("change", "after"),
        [
            ("a=2", {"a": 2, "b": {"c": "x"}}),
            ("b.c=[1, true]", {"a": 1, "b": {"c": [1, True]}}),
            ("b.d=some text", {"a": 1, "b": {"c": "x", "d": "some text"}}),
            ("e==", {"a": 1, "b": {"c": "x"}, "e": "="}),
        ],
    )
    def test_sets_a_field(self, change: str, after: dict[str, Any]) -> None:
        fields: dict[str, Any] = {"a": 1, "b": {"c": "x"}}

        _set(fields, change)

        assert fields == after

    @pytest.mark.parametrize("change", ["a", "=1", "a.b=1", "x.y=1", "b.=1"])
    def test_of_nothing_is_refused(self, change: str) -> None:
        with pytest.raises(UsageError, match="write FIELD=VALUE"):
            _set({"a": 1, "b": {}}, change)

    def test_comes_from_options(self) -> None:
        assert json.loads(_edited(LETTER, ["number=2"], None, editor="vi")) == {"number": 2, "note": "x"}
        assert _edited(LETTER, [], '{"number": 3}', editor="vi") == '{"number": 3}'
        with pytest.raises(UsageError, match="say one of them"):
            _edited(LETTER, ["number=2"], "{}", editor="vi")
        with pytest.raises(UsageError, match="nobody is at the terminal"):
            _edited(LETTER, [], None, editor="vi")

    def test_comes_from_stdin(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("sys.stdin", io.StringIO('{"number": 6}'))

        assert _edited(LETTER, [], "-", editor="vi") == '{"number": 6}'

    def test_comes_from_an_editor_at_a_terminal(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)

        assert json.loads(_edited(LETTER, [], None, editor="sed -i s/1/4/")) == {"number": 4, "note": "x"}
        with pytest.raises(UsageError, match="nothing was changed"):
            _edited(LETTER, [], None, editor="true")
        for broken in ("false", "no-such-editor", '"'):
            with pytest.raises(UsageError, match="set EDITOR, or say --set"):
                _edited(LETTER, [], None, editor=broken)

    def test_must_fit_the_contract(self) -> None:
        assert _message(PlaceOrder, '{"number": 5}', LETTER) == PlaceOrder(number=5)
        with pytest.raises(UsageError, match=r"number.*nothing was sent"):
            _message(PlaceOrder, '{"number": "five"}', LETTER)


class TestTheNewMessage:
    def test_is_the_operator_s_and_linked_to_the_original(self) -> None:
        made = _envelope(PlaceOrder(number=5), LETTER, sender="ops:alice", reason="typo", lifetime_s=60)

        assert (made.sender, made.audience, made.kind) == ("ops:alice", "orders", Kind.COMMAND)
        assert (made.correlation_id, made.causation_id) == (MADE.correlation_id, MADE.id)
        assert made.headers[EDITED_FROM] == LETTER.leaf
        assert made.id != MADE.id
        assert made.expires_at_ms - made.issued_at_ms == 60_000

    def test_of_an_event_goes_to_its_readers(self) -> None:
        letter = replace(LETTER, correlation_id=None)

        made = _envelope(OrderPlaced(number=5), letter, sender="ops:alice", reason="typo", lifetime_s=60)

        assert made.audience == "event:orders.order_placed"
        assert made.correlation_id == MADE.id

    @pytest.mark.parametrize(
        ("changes", "words"),
        [
            ({"is_verified": False}, "nothing to correct"),
            ({"kind": Kind.REPLAY}, "nothing to correct"),
            ({"message_id": None}, "nothing to correct"),
            ({"payload": None, "unreadable_because": "no key"}, "cannot be read here: no key"),
        ],
    )
    def test_is_made_of_what_is_proven_and_readable(self, changes: dict[str, Any], words: str) -> None:
        with pytest.raises(UsageError, match=words):
            _editable(replace(LETTER, **changes))


@pytest.mark.broker
class TestOverABroker:
    @pytest.fixture
    def shop(self, running: Installation) -> Installation:
        clear(running)
        return running

    def test_the_corrected_message_runs_and_the_letter_goes_when_told(self, shop: Installation) -> None:
        (found,) = bury(shop, "typo")
        arguments = ("dead", "edit", found, "--from", "shop", "--set", "total_cents=4200", "--reason", "typo")

        kept = shop.call(*arguments)
        before = dead_ids(shop)
        sent = json.loads(shop.call(*arguments, "--discard", "--json").stdout)

        assert kept.exit_code == 0, kept.stderr
        assert "The original stays" in kept.stderr
        assert before == [found]
        assert (sent["edited_from"], sent["discarded"]) == (found, True)
        assert dead_ids(shop) == []

    def test_what_does_not_fit_the_contract_is_not_sent(self, shop: Installation) -> None:
        (found,) = bury(shop, "typo")

        result = shop.call("dead", "edit", found, "--from", "shop", "--payload", '{"total": 1}', "--reason", "typo")

        assert result.exit_code == 2
        assert "nothing was sent" in result.stderr
        assert dead_ids(shop) == [found]
