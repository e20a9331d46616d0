"""Drift: each finding once without a broker, and once with a fault planted into a real one."""

import asyncio
import json
from typing import Any

import aiormq
import pytest

from messaging.cli.check_topology import check_comparison, check_management, check_policies, check_rungs
from messaging.cli.finding import State
from messaging.cli.management import Management, SeenQueue
from messaging.cli.topology_compare import Comparison
from messaging.core.topology import Names, Topology
from messaging.core.topology_plan import Difference, Plan, Step, Todo
from tests.support.dead_shop import PlaceOrder
from tests.support.installation import Installation, until
from tests.support.managed import ManagedNode

NAMES = Names("shopping")


@pytest.mark.parametrize(
    ("part", "policy", "state"),
    [
        ("commands", {}, State.OK),
        ("commands", {"overflow": "drop-head"}, State.FAIL),
        ("events", {"message-ttl": 1000}, State.FAIL),
        ("dead", {"expires": 1000}, State.FAIL),
        ("refused", {"delivery-limit": 20}, State.FAIL),
        ("commands", {"delivery-limit": 20}, State.OK),
        ("commands", {"max-length": 5, "overflow": "reject-publish"}, State.OK),
        ("commands", {"max-length": 5, "overflow": "drop-head"}, State.FAIL),
        ("retry.1000", {"max-length": 5}, State.FAIL),
        ("faults", {"overflow": "drop-head"}, State.OK),
        ("quarantine", {"max-length": 5}, State.OK),
        ("commands", {"queue-master-locator": "min-masters"}, State.OK),
    ],
)
def test_policies_that_break_a_promise_are_told(part: str, policy: dict[str, Any], state: State) -> None:
    queue = SeenQueue(name=NAMES.queue("shop", part), arguments={}, policy="p", effective=policy)

    found = check_policies([queue], NAMES, ["shop"])

    assert max(finding.state for finding in found) is state
    assert all(queue.name in finding.words for finding in found if finding.state is State.FAIL)


def test_queues_of_others_are_nobodys_business() -> None:
    foreign = SeenQueue(name="foreign", arguments={}, policy="p", effective={"overflow": "drop-head"})

    assert [finding.state for finding in check_policies([foreign], NAMES, ["shop"])] == [State.OK]


def test_a_queue_that_does_not_run_is_told() -> None:
    down = SeenQueue(name=NAMES.queue("shop", "commands"), arguments={}, is_up=False)

    assert "does not run" in check_policies([down], NAMES, ["shop"])[0].words


def test_a_difference_comes_argument_by_argument_with_a_way_out() -> None:
    differences = (Difference(argument="x-delivery-limit", wanted=100, found=20),)
    steps = (
        Step(todo=Todo.DIFFERS, what="queue q", differences=differences),
        Step(todo=Todo.CREATE, what="queue r"),
        Step(todo=Todo.UNBIND, what="binding b"),
        Step(todo=Todo.LEFT_OVER, what="queue s"),
    )

    found = check_comparison("shop", Comparison(wanted=Topology(), plan=Plan(steps=steps)))

    assert [finding.state for finding in found] == [State.FAIL, State.FAIL, State.WARN, State.WARN]
    assert found[0].words == "queue q: x-delivery-limit: wanted 100, found 20"
    assert "another MESSAGING_NAMESPACE" in str(found[0].remedy)
    assert "do not delete it" in str(found[0].remedy)


def test_a_rung_that_does_not_let_go_is_told() -> None:
    stuck = SeenQueue(name=NAMES.rung("shop", 1000), arguments={}, dead_lettering=1)
    well = SeenQueue(name=NAMES.rung("shop", 5000), arguments={})

    [warning] = check_rungs([stuck, well], NAMES, ["shop"])
    [calm] = check_rungs([well], NAMES, ["shop"])

    assert (warning.state, calm.state) == (State.WARN, State.OK)
    assert warning.words == f"1 message cannot leave {stuck.name}"
    assert check_rungs([], NAMES, ["shop"]) == []


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

    def test_a_lossy_policy(self, managed: Installation, managed_node: ManagedNode) -> None:
        managed.call("topology", "apply", "shop:shop")
        policy = json.dumps({"max-length": 10, "overflow": "drop-head"})
        managed_node.ctl("set_policy", "test", f"^{managed.namespace}\\.", policy, "--apply-to", "queues")

        # The API's numbers are some seconds old.
        until(lambda: len(checks(managed).get("shop policies", ())) > 1, what="the API sees the policy")
        result = managed.call("doctor", "--from", "shop:shop")

        assert result.exit_code == 2
        assert f"{managed.namespace}.shop.commands sets overflow=drop-head" in result.stdout
        assert f"{managed.namespace}.shop.dead sets overflow=drop-head" in result.stdout
        assert "clear_policy" in result.stdout

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

    def test_a_rung_whose_way_back_is_blocked(self, managed: Installation, managed_node: ManagedNode) -> None:
        managed.call("topology", "apply", "shop:shop")
        prefix = f"{managed.namespace}.shop"
        policy = json.dumps({"max-length": 0, "overflow": "reject-publish"})
        managed_node.ctl("set_policy", "test", f"^{prefix}\\.commands$", policy, "--apply-to", "queues")

        async def retry(channel: aiormq.abc.AbstractChannel) -> None:
            # A full queue tells a publisher so only after one message too many: they must not all come at once.
            for _ in range(10):
                await channel.basic_publish(
                    b"x", exchange=f"{prefix}.retry.1000", routing_key=f"{prefix}.commands", mandatory=True
                )
                await asyncio.sleep(0.2)

        asyncio.run(on_channel(managed, retry))

        def is_told() -> bool:
            words = checks(managed)["shop rungs"][0]["words"]
            return f"cannot leave {prefix}.retry.1000" in words

        until(is_told, what="the API sees what is stuck", timeout_s=40.0)

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

        found = checks(managed, "--dead-age", "0s")
        assert found["shop consumers"][0]["state"] == "fail"
        assert found["shop dead letters"][0]["words"] == "1 message"
        assert found["shop dead letter age"][0]["state"] == "warn"
        assert checks(managed, "--dead-age", "1h")["shop dead letter age"][0]["state"] == "ok"
