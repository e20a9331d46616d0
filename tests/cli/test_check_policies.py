"""Policies that break a promise: each told without a broker, and some set at a real one."""

import json
from typing import Any

import pytest

from messaging.cli.check_policies import check_policies
from messaging.cli.finding import State
from messaging.cli.management import SeenExchange, SeenQueue
from messaging.core.topology import Names
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
        ("commands", {"max-length": 5, "overflow": "reject-publish"}, State.WARN),
        ("events", {"max-length-bytes": 5}, State.WARN),
        ("dead", {"max-length-bytes": 5}, State.OK),
        ("dead", {"max-length-bytes": 5, "overflow": "drop-head"}, State.FAIL),
        ("commands", {"max-length": 5, "overflow": "drop-head"}, State.FAIL),
        ("retry.1000", {"max-length": 5}, State.FAIL),
        ("retry.1000", {"max-length": 5, "overflow": "reject-publish"}, State.FAIL),
        ("retry.1000", {"dead-letter-routing-key": "x"}, State.FAIL),
        ("commands", {"dead-letter-routing-key": "x"}, State.OK),
        ("commands.p3", {"overflow": "drop-head"}, State.FAIL),
        ("delay.07", {"message-ttl": 1000}, State.FAIL),
        ("delay.07", {}, State.OK),
        ("faults", {"overflow": "drop-head"}, State.OK),
        ("quarantine", {"max-length": 5}, State.OK),
        ("commands", {"queue-master-locator": "min-masters"}, State.OK),
    ],
)
def test_policies_that_break_a_promise_are_told(part: str, policy: dict[str, Any], state: State) -> None:
    queue = SeenQueue(name=NAMES.queue("shop", part), arguments={}, policy="p", effective=policy)

    found = check_policies([queue], [], NAMES, ["shop"])

    assert max(finding.state for finding in found) is state
    assert all(queue.name in finding.words for finding in found if finding.state is not State.OK)


def test_queues_of_others_are_nobodys_business() -> None:
    foreign = SeenQueue(name="foreign", arguments={}, policy="p", effective={"overflow": "drop-head"})

    assert [finding.state for finding in check_policies([foreign], [], NAMES, ["shop"])] == [State.OK]


def test_a_queue_that_does_not_run_is_told() -> None:
    down = SeenQueue(name=NAMES.queue("shop", "commands"), arguments={}, is_up=False)

    assert "does not run" in check_policies([down], [], NAMES, ["shop"])[0].words


@pytest.mark.parametrize(
    ("exchange", "alternate", "state"),
    [
        (NAMES.commands, "elsewhere", State.FAIL),
        (NAMES.requests, "elsewhere", State.FAIL),
        (NAMES.dead, "elsewhere", State.FAIL),
        (NAMES.commands, None, State.OK),
        (NAMES.events, "elsewhere", State.OK),
        ("foreign", "elsewhere", State.OK),
    ],
)
def test_an_exchange_that_confirms_what_nobody_gets_is_told(exchange: str, alternate: str | None, state: State) -> None:
    ruled = SeenExchange(name=exchange, policy="p", alternate=alternate)

    [found] = check_policies([], [ruled], NAMES, ["shop"])

    assert found.state is state


@pytest.mark.broker
def test_policies_at_a_broker(managed: Installation, managed_node: ManagedNode) -> None:
    managed.call("topology", "apply", "shop:shop", "--delays")
    policy = json.dumps({"max-length": 10, "overflow": "drop-head", "alternate-exchange": "amq.fanout"})
    managed_node.ctl("set_policy", "test", f"^{managed.namespace}\\.", policy, "--apply-to", "all")

    prefix = managed.namespace
    expected = [
        f"{prefix}.shop.{part} sets overflow=drop-head" for part in ("commands", "dead", "retry.1000", "delay.00")
    ]
    expected.append(f"exchange {prefix}.commands sets alternate-exchange=amq.fanout")

    def are_told() -> bool:
        said = managed.call("doctor").stdout
        return all(words in said for words in expected)

    # The API's numbers are some seconds old, and not all of one moment.
    until(are_told, what="the API sees the policy")
    result = managed.call("doctor")

    assert result.exit_code == 2
    assert "clear_policy" in result.stdout
