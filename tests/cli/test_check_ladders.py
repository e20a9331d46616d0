"""Rungs and delay levels: missing ones and stuck ones, told without a broker and planted into a real one."""

import asyncio
import json
from typing import Any

import aiormq
import pytest

from messaging.cli.check_ladders import check_delays, check_stuck
from messaging.cli.finding import State
from messaging.cli.management import SeenQueue
from messaging.cli.topology_compare import Comparison
from messaging.core.delays import delay_key, delay_topology
from messaging.core.topology import Names
from messaging.core.topology_plan import TYPE, Existing, plan_topology
from tests.support.installation import Installation, until
from tests.support.managed import ManagedNode

NAMES = Names("shopping")
LEVELS = delay_topology(NAMES, "shop")
NOTHING = Existing(exchanges={}, queues={})


def compared(there: Existing) -> Comparison:
    return Comparison(wanted=LEVELS, plan=plan_topology(LEVELS, there, names=NAMES, services=["shop"]))


def existing(*, without: str = "") -> Existing:
    return Existing(
        exchanges={one.name: {TYPE: one.type, **one.arguments} for one in LEVELS.exchanges},
        queues={one.name: one.arguments for one in LEVELS.queues if one.name != without},
        bindings=frozenset(one for one in LEVELS.bindings if one.queue != without),
    )


@pytest.mark.parametrize(
    ("name", "check"),
    [(NAMES.rung("shop", 1000), "shop rungs"), (NAMES.delay("shop", 3), "shop delay levels")],
)
def test_what_does_not_let_go_is_told(name: str, check: str) -> None:
    stuck = SeenQueue(name=name, arguments={}, dead_lettering=1)

    [warning] = check_stuck([stuck], NAMES, ["shop"])
    [calm] = check_stuck([SeenQueue(name=name, arguments={})], NAMES, ["shop"])

    assert (warning.check, warning.state, calm.check, calm.state) == (check, State.WARN, check, State.OK)
    assert warning.words == f"1 message cannot leave {name}, though the time has passed"


def test_what_has_no_ladder_is_not_spoken_of() -> None:
    entry = SeenQueue(name=NAMES.queue("shop", "commands"), arguments={}, dead_lettering=1)

    assert check_stuck([entry], NAMES, ["shop"]) == []


@pytest.mark.parametrize(("are_wanted", "state"), [(False, State.OK), (True, State.FAIL)])
def test_no_levels_at_all_are_wrong_only_where_somebody_needs_them(are_wanted: bool, state: State) -> None:
    [found] = check_delays("shop", compared(NOTHING), are_wanted=are_wanted)

    assert found.state is state


def test_all_levels_are_there() -> None:
    [found] = check_delays("shop", compared(existing()), are_wanted=True)

    assert (found.state, found.words) == (State.OK, "20 are as wanted")


def test_one_missing_level_among_others_is_wrong_whoever_asks() -> None:
    gone = NAMES.delay("shop", 3)

    [found] = check_delays("shop", compared(existing(without=gone)), are_wanted=False)

    assert found.state is State.FAIL
    assert f"the first: queue {gone}: commands for later are refused, or end among the dead letters" in found.words
    assert "messaging topology apply --delays" in str(found.remedy)


def test_a_level_with_other_arguments_comes_with_a_way_out() -> None:
    there, odd = existing(), NAMES.delay("shop", 3)
    arguments = {**there.queues[odd], "x-message-ttl": 5}

    queues = {**there.queues, odd: arguments}
    [found] = check_delays(
        "shop",
        compared(Existing(exchanges=there.exchanges, queues=queues, bindings=there.bindings)),
        are_wanted=False,
    )

    assert found.words == f"queue {odd}: x-message-ttl: wanted 8000, found 5"
    assert "do not delete it" in str(found.remedy)


# Faults planted into a real broker.


async def on_channel(installation: Installation, act: Any) -> None:
    connection = await aiormq.connect(installation.broker_url)
    try:
        await act(await connection.channel())
    finally:
        await connection.close()


def found_at(installation: Installation, *arguments: str) -> dict[str, list[dict[str, str]]]:
    found: dict[str, list[dict[str, str]]] = {}
    for check in installation.json("doctor", "--json", *arguments)["checks"]:
        found.setdefault(check["check"], []).append(check)
    return found


@pytest.mark.broker
@pytest.mark.parametrize("is_managed", [True, False])
def test_missing_ones_at_a_broker(managed: Installation, monkeypatch: pytest.MonkeyPatch, is_managed: bool) -> None:
    if not is_managed:
        monkeypatch.delenv("MESSAGING_MANAGEMENT_URL")
    managed.call("topology", "apply", "shop:shop", "--delays")
    prefix = f"{managed.namespace}.shop"

    async def delete(channel: aiormq.abc.AbstractChannel) -> None:
        for part in ("retry.1000", "delay.03", "dead"):
            await channel.queue_delete(f"{prefix}.{part}")

    asyncio.run(on_channel(managed, delete))
    found = found_at(managed, "--from", "shop:shop")

    broken = {entry["check"]: entry["words"] for check in found.values() for entry in check if entry["state"] == "fail"}
    assert f"queue {prefix}.retry.1000: what fails cannot wait" in broken["shop rungs"]
    assert f"queue {prefix}.delay.03: commands for later" in broken["shop delay levels"]
    assert "what cannot succeed has nowhere to go" in broken["shop dead letters"]
    assert "shop topology" not in broken

    managed.call("topology", "apply", "shop:shop", "--delays")
    mended = managed.json("doctor", "--json", "--from", "shop:shop", "--delays")["checks"]
    assert not [entry for entry in mended if entry["state"] == "fail"]


@pytest.mark.broker
def test_ladders_whose_way_back_is_blocked(managed: Installation, managed_node: ManagedNode) -> None:
    managed.call("topology", "apply", "shop:shop", "--delays")
    prefix = f"{managed.namespace}.shop"
    policy = json.dumps({"max-length": 0, "overflow": "reject-publish"})
    managed_node.ctl("set_policy", "test", f"^{prefix}\\.commands$", policy, "--apply-to", "queues")

    async def wait(channel: aiormq.abc.AbstractChannel) -> None:
        for exchange, key in ((f"{prefix}.retry.1000", f"{prefix}.commands"), (f"{prefix}.delay", delay_key(1))):
            await channel.basic_publish(b"x", exchange=exchange, routing_key=key, mandatory=True)

    def are_told() -> bool:
        # A full queue tells a publisher so only after one message too many, and those that come at once are one: so
        # there is always one more.
        asyncio.run(on_channel(managed, wait))
        found = found_at(managed)
        return (
            f"cannot leave {prefix}.retry.1000" in found["shop rungs"][0]["words"]
            and f"cannot leave {prefix}.delay.00" in found["shop delay levels"][0]["words"]
        )

    until(are_told, what="the API sees what is stuck")
