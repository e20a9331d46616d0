"""Topology from the shell: shown without a broker, applied to a real one."""

import pytest

from tests.support.installation import Installation


class TestShow:
    def test_as_tables(self, offline: Installation) -> None:
        shown = offline.call("topology", "show", "shop:shop").stdout

        for words in ("Exchanges", "Queues", "Bindings", "shop.place_order.v1", "x-queue-type=quorum"):
            assert words in shown

    def test_as_json(self, offline: Installation) -> None:
        shown = offline.json("topology", "show", "shop:shop", "--json")

        queues = {queue["name"]: queue["arguments"] for queue in shown["queues"]}
        business = queues[f"{offline.namespace}.shop.commands"]
        assert business["x-queue-type"] == "quorum"
        assert {"shop.place_order.v1", "shop.order_placed.v1", "shop.get_order.v1"} <= {
            binding["routing_key"] for binding in shown["bindings"]
        }

    def test_with_the_delay_levels_when_they_are_asked_for(self, offline: Installation) -> None:
        without = offline.json("topology", "show", "shop:shop", "--json")
        with_them = offline.json("topology", "show", "shop:shop", "--delays", "--json")

        levels = {f"{offline.namespace}.shop.delay.{level:02}" for level in range(20)}
        assert levels & {queue["name"] for queue in without["queues"]} == set()
        assert levels <= {queue["name"] for queue in with_them["queues"]}

    def test_of_what_is_no_service(self, offline: Installation) -> None:
        assert offline.call("topology", "show", "shop:PlaceOrder").exit_code == 2


class TestApply:
    @pytest.mark.broker
    def test_it_makes_everything_exist_and_a_second_time_changes_nothing(self, quiet: Installation) -> None:
        first = quiet.call("topology", "apply", "shop:shop")
        second = quiet.call("topology", "apply", "shop:shop")

        assert first.exit_code == second.exit_code == 0, first.stderr
        assert first.stdout == second.stdout
        assert first.stdout.startswith("shop: ")
        topology = [
            check
            for check in quiet.json("doctor", "--from", "shop:shop", "--json")["checks"]
            if "topology" in check["check"]
        ]
        assert [check["state"] for check in topology] == ["ok"]

    @pytest.mark.broker
    def test_it_makes_the_delay_levels_when_they_are_asked_for(self, quiet: Installation) -> None:
        before = quiet.call("topology", "apply", "shop:shop")
        first = quiet.call("topology", "apply", "shop:shop", "--delays")
        second = quiet.call("topology", "apply", "--delays", "shop:shop")

        assert first.exit_code == second.exit_code == 0, first.stderr
        assert first.stdout == second.stdout
        counted = [int(words.split()[1]) for words in (before.stdout, first.stdout)]
        assert counted[1] - counted[0] == 21

    def test_without_a_broker(self, offline: Installation) -> None:
        result = offline.call("topology", "apply", "shop:shop", changes={"MESSAGING_CONNECT_TIMEOUT_S": "0.3"})

        assert result.exit_code == 3

    def test_on_the_embedded_broker_there_is_nothing_to_apply(self, offline: Installation) -> None:
        result = offline.call("topology", "apply", "shop:shop", changes={"MESSAGING_BROKER_URL": "memory://"})

        assert result.exit_code == 2
        assert "embedded" in result.stderr


ACCOUNTS = """
from messaging import Command, Context, Service

class Book(Command, name="accounts.book", key="account"):
    account: str

accounts = Service("accounts", partitions={count})

@accounts.on_command(Book)
async def book(command: Book, context: Context) -> None:
    pass
"""


class TestPartitions:
    @pytest.mark.broker
    def test_another_number_takes_the_bindings_of_the_old_one_away(self, quiet: Installation) -> None:
        for name, count in (("before", 2), ("after", 4)):
            (quiet.folder / f"accounts_{name}.py").write_text(ACCOUNTS.format(count=count))
        quiet.call("topology", "apply", "accounts_before:accounts")

        plain = quiet.call("topology", "apply", "--partitions-before", "2", "accounts_before:accounts").stdout
        changed = quiet.call("topology", "apply", "--partitions-before", "2", "accounts_after:accounts").stdout
        first = quiet.call("topology", "apply", "--partitions-before", "0", "accounts_after:accounts").stdout

        assert "are gone" not in plain
        assert "2 bindings of 2 partitions are gone" in changed
        assert "2 bindings of 0 partitions are gone" in first

    def test_number_that_never_was(self, offline: Installation) -> None:
        (offline.folder / "accounts_three.py").write_text(ACCOUNTS.format(count=4))

        result = offline.call("topology", "apply", "--partitions-before", "3", "accounts_three:accounts")

        assert result.exit_code == 2
        assert "use 1, 2, 4" in result.stderr
