"""`doctor` as a person and as a monitoring system meet it."""

import pytest

from tests.support.installation import Installation


def states(shown: dict[str, list[dict[str, str]]]) -> dict[str, str]:
    return {check["check"]: check["state"] for check in shown["checks"]}


class TestWithoutABroker:
    def test_it_says_so_and_looks_at_the_rest(self, offline: Installation) -> None:
        result = offline.call("doctor")

        assert result.exit_code == 2
        assert "fail  broker: no broker at 127.0.0.1:" in result.stdout
        assert "try: start one with `messaging broker up`" in result.stdout
        assert "ok    trust of shop" in result.stdout

    def test_settings_that_cannot_be_read_are_a_finding(self, offline: Installation) -> None:
        result = offline.call("doctor", changes={"MESSAGING_NAMESPACE": "No Name"})

        assert result.exit_code == 2
        assert result.stdout.startswith("fail  settings:")

    def test_a_passphrase_file_that_is_not_there_is_a_finding(self, offline: Installation) -> None:
        result = offline.call("doctor", changes={"MESSAGING_PASSPHRASE_FILE": "/nowhere"})

        assert "fail  passphrase: /nowhere" in result.stdout

    def test_the_embedded_broker_needs_no_look(self, offline: Installation) -> None:
        result = offline.call("doctor", changes={"MESSAGING_BROKER_URL": "memory://"})

        assert result.exit_code == 0
        assert "embedded" in result.stdout

    def test_no_password_is_shown(self, offline: Installation) -> None:
        url = offline.broker_url.replace("guest:guest@", "guest:secret-word@")

        assert "secret-word" not in offline.call("doctor", changes={"MESSAGING_BROKER_URL": url}).output


@pytest.mark.broker
class TestOnARealBroker:
    def test_all_is_well(self, running: Installation) -> None:
        shown = running.json("doctor", "--from", "shop:shop", "--json")

        found = states(shown)
        assert found["login"] == found["shop topology"] == found["shop consumers"] == "ok"
        assert found["shop refused"] == found["shop quarantine"] == "ok"

    def test_a_service_that_was_never_started(self, quiet: Installation) -> None:
        result = quiet.call("doctor", "--from", "shop:shop")

        assert result.exit_code == 2
        assert "missing, the first: " in result.stdout

    def test_queues_that_nobody_consumes(self, quiet: Installation) -> None:
        quiet.call("topology", "apply", "shop:shop")
        assert quiet.call("doctor").exit_code == 1

        order = "11111111-1111-4111-8111-111111111111"
        quiet.call("send", "shop.place_order/1", f'{{"order_id": "{order}", "total_cents": 1}}', "--from", "shop")
        result = quiet.call("doctor")

        assert result.exit_code == 2
        assert "1 commands wait" in result.stdout

    def test_wrong_credentials_are_told_apart_from_no_broker(self, quiet: Installation) -> None:
        wrong = quiet.broker_url.replace("guest:guest@", "guest:wrong@")

        result = quiet.call("doctor", "--json", changes={"MESSAGING_BROKER_URL": wrong})

        assert result.exit_code == 2
        assert '"check": "login"' in result.stdout
        assert "RabbitMQ" in result.stdout
