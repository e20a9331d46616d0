"""Topology from the shell: shown without a broker, applied to a real one."""

import sys
from pathlib import Path

import pytest

from tests.support.installation import SHOP, Installation


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


@pytest.mark.broker
class TestPlan:
    def test_it_says_what_apply_would_make_and_makes_nothing(self, quiet: Installation) -> None:
        first = quiet.call("topology", "plan", "shop:shop")
        second = quiet.json("topology", "plan", "shop:shop", "--json")

        assert first.exit_code == 1
        assert f"+ queue {quiet.namespace}.shop.commands is missing" in first.stdout
        assert "not checked: bindings: AMQP cannot list them" in first.stderr
        assert {step["todo"] for step in second["steps"]} == {"create"}

    def test_apply_says_the_same_when_it_is_told_to_do_nothing(self, quiet: Installation) -> None:
        planned = quiet.call("topology", "plan", "shop:shop")

        rehearsed = quiet.call("topology", "apply", "shop:shop", "--dry-run", "--delays", "--partitions-before", "2")

        assert rehearsed.exit_code == 1
        assert set(planned.stdout.splitlines()) < set(rehearsed.stdout.splitlines())
        assert f"+ queue {quiet.namespace}.shop.delay.00" in rehearsed.stdout
        assert quiet.call("topology", "plan", "shop:shop").stdout == planned.stdout

    def test_delay_levels_stay_when_bindings_are_pruned_without_a_word_of_them(self, managed: Installation) -> None:
        managed.call("topology", "apply", "shop:shop", "--delays")

        assert managed.call("topology", "apply", "shop:shop", "--prune").exit_code == 0

        assert managed.call("topology", "plan", "shop:shop", "--delays").exit_code == 0

    def test_after_apply_nothing_is_left_to_do(self, quiet: Installation) -> None:
        quiet.call("topology", "apply", "shop:shop")

        result = quiet.call("topology", "plan", "shop:shop")

        assert result.exit_code == 0
        assert "Nothing to do" in result.stdout

    def test_a_handler_that_is_gone_leaves_its_binding_until_it_is_pruned(
        self, managed: Installation, tmp_path: Path
    ) -> None:
        managed.call("topology", "apply", "shop:shop")
        (tmp_path / "less.py").write_text(_without_events())
        sys.path.insert(0, str(tmp_path))

        planned = managed.call("topology", "plan", "less:shop")
        plain = managed.call("topology", "apply", "less:shop")
        still = managed.call("topology", "plan", "less:shop")
        pruned = managed.call("topology", "apply", "less:shop", "--prune")
        after = managed.call("topology", "plan", "less:shop")

        stale = "by shop.order_placed.v1 has no handler any more"
        assert stale in planned.stdout
        assert f"? queue {managed.namespace}.shop.events is not used any more" in planned.stdout
        assert plain.exit_code == 0
        assert stale in still.stdout
        assert "gone: binding" in pruned.stdout, pruned.stderr
        assert stale not in after.stdout
        assert "shop.events is not used any more" in after.stdout

    def test_without_a_management_api_an_earlier_record_tells_which(self, quiet: Installation, tmp_path: Path) -> None:
        quiet.call("topology", "apply", "shop:shop")
        before = tmp_path / "before.json"
        before.write_text(quiet.call("topology", "show", "shop:shop", "--json").stdout)
        (tmp_path / "less.py").write_text(_without_events())
        sys.path.insert(0, str(tmp_path))

        blind = quiet.call("topology", "apply", "less:shop", "--prune")
        planned = quiet.call("topology", "plan", "less:shop", "--recorded", str(before))
        pruned = quiet.call("topology", "apply", "less:shop", "--prune", "--recorded", str(before))

        assert blind.exit_code == 2
        assert "MESSAGING_MANAGEMENT_URL" in blind.stderr
        assert "by shop.order_placed.v1 has no handler any more" in planned.stdout
        assert "gone: binding" in pruned.stdout, pruned.stderr


def _without_events() -> str:
    head, _, rest = SHOP.partition("@shop.on_event(OrderPlaced)")
    return head + "@shop.on_request(GetOrder)" + rest.partition("@shop.on_request(GetOrder)")[2]
