"""One message from the shell: checked against its contract, sent for real, and what the user sees when it cannot be."""

import json
from uuid import UUID, uuid4

import pytest

from tests.support.installation import Installation, until

ORDER = "11111111-1111-4111-8111-111111111111"


class TestChecksBeforeAnythingLeaves:
    """No broker is there: what these refuse never got as far as asking for one."""

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            (("send", "shop.place_order/1", '{"order_id": "x"}'), "order_id: Input should be a valid UUID"),
            (("send", "shop.place_order/1", f'{{"order_id": "{ORDER}", "total_cents": 1, "x": 2}}'), "x: Extra inputs"),
            (("send", "shop.place_order/1", "{"), "Invalid JSON"),
            (("send", "shop.place_order/2", f'{{"order_id": "{ORDER}"}}', "--at", "2027-01-31T09:00"), "no time zone"),
            (("send", "shop.place_ordr", "{}"), "did you mean shop.place_order"),
            (("send", "shop.place_order/3", "{}"), "holds no message"),
            (("publish", "shop.place_order", "{}"), "use `messaging send"),
            (("send", "shop.get_order", "{}"), "use `messaging request"),
            (("request", "shop.order_placed", "{}"), "use `messaging publish"),
        ],
    )
    def test_a_message_that_does_not_fit_is_refused_with_what_would(
        self, offline: Installation, arguments: tuple[str, ...], words: str
    ) -> None:
        result = offline.call(*arguments, "--from", "shop")

        assert result.exit_code == 2
        assert words in result.stderr
        assert result.stderr.count("\n") == 1

    def test_the_fields_are_named(self, offline: Installation) -> None:
        result = offline.call("send", "shop.place_order/1", "{}", "--from", "shop")

        assert "order_id: UUID, total_cents: int, note: str (optional)" in result.stderr

    def test_without_a_version_the_highest_is_meant(self, offline: Installation) -> None:
        result = offline.call("send", "shop.place_order", '{"total_cents": 1}', "--from", "shop")

        assert "its fields: order_id: UUID\n" in result.stderr


@pytest.mark.broker
class TestOnARealBroker:
    def test_a_command_is_sent_and_its_id_printed(self, running: Installation) -> None:
        payload = f'{{"order_id": "{ORDER}", "total_cents": 5}}'

        result = running.call("send", "shop.place_order", payload, "--from", "shop:shop", "--as", "dev")

        assert result.exit_code == 0, result.stderr
        assert UUID(result.stdout.strip())

    def test_a_command_for_later_needs_delay_levels(self, running: Installation) -> None:
        payload = f'{{"order_id": "{ORDER}", "total_cents": 5}}'
        command = ("send", "shop.place_order", payload, "--from", "shop:shop", "--as", "dev")

        without = running.call(*command, "--at", "+1h")
        applied = running.call("topology", "apply", "--delays", "shop:shop")
        with_them = running.call(*command, "--at", "+1h")

        assert (without.exit_code, applied.exit_code, with_them.exit_code) == (1, 0, 0), with_them.stderr
        assert "messaging topology apply --delays" in without.stderr
        assert UUID(with_them.stdout.strip())

    def test_an_id_of_ones_own_and_json(self, running: Installation) -> None:
        mine = uuid4()
        payload = f'{{"order_id": "{ORDER}", "total_cents": 5}}'

        shown = running.json(
            *("send", "shop.place_order/1", payload, "--from", "shop", "--id", str(mine), "--json", "--as", "ops:dev")
        )

        assert shown == {"id": str(mine), "name": "shop.place_order", "version": 1, "kind": "command"}

    def test_an_event_from_stdin_reaches_its_subscriber(self, running: Installation) -> None:
        order = str(uuid4())

        result = running.call("publish", "shop.order_placed", "-", "--from", "shop", said=f'{{"order_id": "{order}"}}')

        assert result.exit_code == 0, result.stderr
        placed = running.folder / "placed"
        until(lambda: placed.exists() and order in placed.read_text(), what="the event was handled")

    def test_a_request_prints_its_answer_as_json(self, running: Installation) -> None:
        assert running.json("request", "shop.get_order", f'{{"order_id": "{ORDER}"}}', "--from", "shop") == {
            "status": "placed"
        }

    def test_a_declared_failure_is_one_line_and_exit_code_1(self, running: Installation) -> None:
        result = running.call("request", "shop.get_order", json.dumps({"order_id": str(UUID(int=0))}), "--from", "shop")

        assert result.exit_code == 1
        assert result.stderr.startswith("error: shop.unknown_order(order_id=")
        assert result.stderr.count("\n") == 1

    def test_a_command_that_nobody_handles_names_its_routing_key(self, running: Installation) -> None:
        result = running.call("send", "shop.forget", "{}", "--from", "shop")

        assert result.exit_code == 1
        assert "shop.forget.v1" in result.stderr

    def test_a_request_that_nobody_answers_ends_at_its_deadline(self, quiet: Installation) -> None:
        quiet.call("topology", "apply", "shop:shop")

        payload = f'{{"order_id": "{ORDER}"}}'
        result = quiet.call("request", "shop.get_order", payload, "--from", "shop", "--timeout", "0.3")

        assert result.exit_code == 1
        assert "0.3" in result.stderr
