"""Drift: each finding once without a broker, and once with a fault planted into a real one."""

import asyncio
from typing import Any

import aiormq
import pytest

from messaging.cli.check_topology import check_comparison, check_management
from messaging.cli.finding import State
from messaging.cli.management import Management
from messaging.cli.topology_compare import Comparison
from messaging.core.topology import Names, Subscriptions, Topology
from messaging.core.topology_plan import TYPE, Difference, Existing, Plan, Step, Todo, plan_topology
from tests.support.dead_shop import PlaceOrder
from tests.support.installation import Installation, until
from tests.support.managed import ManagedNode

NAMES = Names("shopping")
WANTED = NAMES.of_service("shop", Subscriptions(commands=frozenset({("shop.place", 1)}), rungs_ms=(1000, 5000)))


def test_a_difference_comes_argument_by_argument_with_a_way_out() -> None:
    differences = (Difference(argument="x-delivery-limit", wanted=100, found=20),)
    steps = (
        Step(todo=Todo.DIFFERS, what="queue q", differences=differences),
        Step(todo=Todo.CREATE, what="queue r"),
        Step(todo=Todo.UNBIND, what="binding b"),
        Step(todo=Todo.LEFT_OVER, what="queue s"),
    )

    found = check_comparison("shop", Comparison(wanted=WANTED, plan=Plan(steps=steps)), NAMES)

    assert [finding.state for finding in found] == [State.FAIL, State.FAIL, State.WARN, State.WARN]
    assert found[0].words == "queue q: x-delivery-limit: wanted 100, found 20"
    assert "another MESSAGING_NAMESPACE" in str(found[0].remedy)
    assert "do not delete it" in str(found[0].remedy)


def without(*names: str) -> Comparison:
    """Return what is found where queues and exchanges of these names are gone, with their bindings."""
    there = Existing(
        exchanges={one.name: {TYPE: one.type, **one.arguments} for one in WANTED.exchanges if one.name not in names},
        queues={one.name: one.arguments for one in WANTED.queues if one.name not in names},
        bindings=frozenset(one for one in WANTED.bindings if one.queue not in names and one.exchange not in names),
    )
    return Comparison(wanted=WANTED, plan=plan_topology(WANTED, there, names=NAMES, services=["shop"]))


def test_a_rung_that_is_missing_is_told_apart() -> None:
    [found] = check_comparison("shop", without(NAMES.rung("shop", 5000)), NAMES)

    assert (found.check, found.state) == ("shop rungs", State.FAIL)
    assert f"exchange {NAMES.rung('shop', 5000)}: what fails cannot wait" in found.words
    assert "messaging topology apply" in str(found.remedy)


@pytest.mark.parametrize("part", ["dead", "undeliverable"])
def test_a_way_to_the_dead_letters_that_is_missing_is_told_apart(part: str) -> None:
    [found] = check_comparison("shop", without(NAMES.queue("shop", part)), NAMES)

    assert (found.check, found.state) == ("shop dead letters", State.FAIL)
    assert "what cannot succeed has nowhere to go" in found.words


def test_a_service_that_was_never_started_is_one_finding() -> None:
    own = [one.name for one in WANTED.exchanges] + [one.name for one in WANTED.queues]
    own = [name for name in own if ".shop." in name]

    [found] = check_comparison("shop", without(*own), NAMES)

    assert (found.check, found.state) == ("shop topology", State.FAIL)


def test_a_client_whose_exchanges_are_there_is_well() -> None:
    [found] = check_comparison("shop", Comparison(wanted=Topology(), plan=Plan(steps=())), NAMES)

    assert found.state is State.OK


def test_a_management_api_that_does_not_answer_is_a_finding() -> None:
    [found] = check_management(Management("http://127.0.0.1:1", vhost="/"))

    assert found.state is State.FAIL


# Faults planted into a real broker.


def checks(installation: Installation, *arguments: str) -> dict[str, list[dict[str, str]]]:
    shown = installation.json("doctor", "--json", "--from", "shop:shop", *arguments)
    found: dict[str, list[dict[str, str]]] = {}
    for check in shown["checks"]:
        found.setdefault(check["check"], []).append(check)
    return found


async def on_channel(installation: Installation, act: Any) -> None:
    connection = await aiormq.connect(installation.broker_url)
    try:
        await act(await connection.channel())
    finally:
        await connection.close()


@pytest.mark.broker
class TestPlanted:
    def test_nothing_is_wrong(self, managed: Installation) -> None:
        assert managed.call("topology", "apply", "shop:shop").exit_code == 0

        found = checks(managed)

        for check in ("management", "feature flags", "policies", "shop topology"):
            assert [entry["state"] for entry in found[check]] == ["ok"], found[check]

    def test_nothing_is_wrong_with_a_user_who_may_only_look(
        self, managed: Installation, managed_node: ManagedNode, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        managed.call("topology", "apply", "shop:shop")
        managed_node.ctl("add_user", "watcher", "seen")
        managed_node.ctl("set_user_tags", "watcher", "monitoring")
        managed_node.ctl("set_permissions", "watcher", "", "", "")
        monkeypatch.setenv(
            "MESSAGING_MANAGEMENT_URL", managed_node.management_url.replace("guest:guest", "watcher:seen")
        )

        found = checks(managed)

        for check in ("management", "feature flags", "policies", "shop topology"):
            assert [entry["state"] for entry in found[check]] == ["ok"], found[check]
        assert "administrators" in found["feature flags"][0]["words"]

    @pytest.mark.parametrize("is_managed", [True, False])
    def test_a_queue_with_other_arguments(
        self, managed: Installation, monkeypatch: pytest.MonkeyPatch, is_managed: bool
    ) -> None:
        if not is_managed:
            monkeypatch.delenv("MESSAGING_MANAGEMENT_URL")
        queue = f"{managed.namespace}.shop.commands"

        shown = managed.json("topology", "show", "shop:shop", "--json")
        wanted = {entry["name"]: entry["arguments"] for entry in shown["queues"]}[queue]

        async def declare(channel: aiormq.abc.AbstractChannel) -> None:
            await channel.queue_declare(queue, durable=True, arguments={**wanted, "x-delivery-limit": 20})

        asyncio.run(on_channel(managed, declare))

        [drift] = [entry for entry in checks(managed)["shop topology"] if queue in entry["words"]]

        assert drift["state"] == "fail"
        assert "x-delivery-limit: wanted 100, found 20" in drift["words"]
        assert "another MESSAGING_NAMESPACE" in drift["remedy"]

    def test_a_binding_that_no_handler_needs(self, managed: Installation) -> None:
        managed.call("topology", "apply", "shop:shop")

        async def bind(channel: aiormq.abc.AbstractChannel) -> None:
            await channel.queue_bind(
                f"{managed.namespace}.shop.commands", f"{managed.namespace}.commands", "shop.forgotten.v1"
            )

        asyncio.run(on_channel(managed, bind))

        [stale] = checks(managed)["shop topology"]
        assert stale["state"] == "warn"
        assert "shop.forgotten.v1" in stale["words"]

    def test_a_command_without_consumers_and_an_old_dead_letter(self, managed: Installation) -> None:
        assert PlaceOrder.__contract__ is not None
        managed.call("topology", "apply", "shop:shop")
        managed.call(
            *("send", "shop.place_order/1", '{"order_id": "11111111-1111-4111-8111-111111111111", "total_cents": 1}'),
            *("--from", "shop"),
        )

        async def kill(channel: aiormq.abc.AbstractChannel) -> None:
            found = await channel.basic_get(f"{managed.namespace}.shop.commands", no_ack=False)
            assert found.delivery_tag is not None
            exchange = f"{managed.namespace}.shop.undeliverable"
            await channel.basic_publish(found.body, exchange=exchange, routing_key="")

        asyncio.run(on_channel(managed, kill))

        def are_told() -> bool:
            found = checks(managed, "--dead-age", "0s")
            return (
                found["shop consumers"][0]["state"] == "fail"
                and found["shop dead letters"][0]["words"] == "1 message"
                and found["shop dead letter age"][0]["state"] == "warn"
            )

        # What was put there, and what was given back, counts a moment later.
        until(are_told, what="the command and the dead letter are told")
        assert checks(managed, "--dead-age", "1h")["shop dead letter age"][0]["state"] == "ok"
