"""Replay under fire: the replayer dies at each step, two at once, no target, one of many, done, one subscriber."""

import asyncio
import contextlib
import json
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from unittest.mock import patch

import pytest
from yarl import URL

from messaging import Selection
from messaging.cli.broker_node import PrivateNode
from messaging.operators import open_operator
from messaging.runtime.failpoint import Step
from messaging.transports.base import Delivery
from tests.support.broker import Broker
from tests.support.graveyard import OPERATOR, Graveyard, Moved, open_graveyard
from tests.support.proxy import TcpProxy
from tests.support.waiting import eventually

pytestmark = [pytest.mark.broker, pytest.mark.timeout(300)]

REPLAY_STEPS = [Step.BEFORE_REPLAY, Step.AFTER_REPLAY, Step.AFTER_LETTER, Step.BEFORE_RETURN]
WINDOW = 32


@pytest.fixture
async def yard(broker: Broker, tmp_path: Path) -> AsyncIterator[Graveyard]:
    async with open_graveyard(tmp_path, broker.url) as opened:
        yield opened


async def assert_each_ran_once(yard: Graveyard, numbers: list[int]) -> None:
    await yard.ran(numbers)
    assert await yard.depth("shop", "dead") == 0
    assert await yard.depth("shop", "quarantine") == 0


@pytest.mark.parametrize("step", REPLAY_STEPS)
async def test_a_replayer_killed_at_any_step_loses_nothing_and_runs_nothing_twice(yard: Graveyard, step: Step) -> None:
    numbers = await yard.bury(45)
    yard.mended.add("shop")
    times = 1 if step is Step.BEFORE_RETURN else 7

    killed = await yard.replay("shop", failpoint=f"{step}:{times}")
    assert killed.was_killed, killed.err
    again = await yard.replay("shop")

    assert again.code in (0, 5), again.err
    await assert_each_ran_once(yard, numbers)
    # What the killed one had published and not yet taken away came twice: refused as done, and no more than the window.
    assert await yard.depth("shop", "refused") <= WINDOW


async def test_ctrl_c_leaves_each_letter_replayed_or_dead_and_the_same_command_goes_on(yard: Graveyard) -> None:
    numbers = await yard.bury(45)
    yard.mended.add("shop")

    interrupted = await yard.replay("shop", "--rate", "2", interrupt_after=5)
    assert interrupted.code == 130, interrupted.err
    done = int(interrupted.err.partition("stopped: ")[2].split()[0])
    assert 5 <= done < 45
    await yard.until_dead("shop", 45 - done)

    async def all_that_were_replayed_have_run() -> bool:
        return len(await yard.effects()) >= done

    await eventually(all_that_were_replayed_have_run, what="what was replayed has run")
    await yard.settled()
    assert len(await yard.effects()) == done

    again = await yard.replay("shop")

    assert again.code == 0, again.err
    await assert_each_ran_once(yard, numbers)
    assert await yard.depth("shop", "refused") == 0


async def test_a_link_that_breaks_under_a_pass_loses_nothing_and_replays_nothing_twice(
    yard: Graveyard, broker: Broker
) -> None:
    numbers = await yard.bury(60)
    yard.mended.add("shop")
    address = URL(broker.url)
    async with TcpProxy(address.host or "", address.port or 5672) as proxy:
        through = str(address.with_host("127.0.0.1").with_port(proxy.port))
        settings = yard.settings.model_copy(update={"broker_url": through})
        async with open_operator(settings, OPERATOR) as acting:
            passing = asyncio.create_task(acting.dead_letters.replay("shop", reason="a test", rate_per_s=15))
            await eventually(lambda: yard.runs["shop"] >= 60 + 5, what="the replay was under way")
            proxy.cut()
            await asyncio.wait([passing])
            report = None if passing.exception() else passing.result()
    again = await yard.replay("shop")

    assert again.code in (0, 5), again.err
    assert report is None or report.replayed >= 5
    await assert_each_ran_once(yard, numbers)


async def test_of_two_replayers_at_once_one_is_told_so(yard: Graveyard) -> None:
    numbers = await yard.bury(40)
    yard.mended.add("shop")

    # Slowly: a busy machine may start the other one seconds later, and it must not find that all is done.
    both = await asyncio.gather(*(yard.replay("shop", "--rate", "3") for _ in range(2)))

    assert sorted(one.code for one in both) == [0, 1]
    assert any("somebody else is replaying" in one.err for one in both)
    await assert_each_ran_once(yard, numbers)


async def test_two_passes_without_a_lock_run_nothing_twice(yard: Graveyard) -> None:
    numbers = await yard.bury(80)
    yard.mended.add("shop")

    async with open_operator(yard.settings, OPERATOR) as other:
        for acting in (yard.operator, other):
            acting.transport.lock = lambda _: contextlib.nullcontext()  # type: ignore[method-assign, assignment]
        reports = await asyncio.gather(
            *(acting.dead_letters.replay("shop", reason="both") for acting in (yard.operator, other))
        )
        left = await other.dead_letters.replay("shop", reason="the rest")

    assert sum(report.replayed for report in reports) + left.replayed == 80
    await assert_each_ran_once(yard, numbers)


async def test_a_service_that_is_gone_with_its_queue_keeps_its_letters(yard: Graveyard) -> None:
    numbers = await yard.bury(20)
    await yard.services["shop"].stop()
    await delete_queue(yard, "commands")

    failed = await yard.replay("shop", "--stop-after", "3")

    assert failed.code == 1, failed.err
    assert "there is no queue" in failed.err
    await yard.until_depth("shop", "dead", 20)

    yard.mended.add("shop")
    await yard.services["shop"].start()
    assert (await yard.replay("shop")).code == 0
    await assert_each_ran_once(yard, numbers)


async def test_a_queue_that_goes_under_the_replayer_sends_all_back_to_the_dead(yard: Graveyard) -> None:
    numbers = await yard.bury(20)
    await yard.services["shop"].stop()
    await yard.replay("shop", "--limit", "1")
    await yard.until_depth("shop", "dead", 19)
    find = "messaging.runtime.dead_acts.DeadActs._find"

    async def blind(*_: object) -> None:
        """See the queue where it has just been deleted."""

    await delete_queue(yard, "commands")
    with patch(find, blind):
        await yard.operator.dead_letters.replay("shop", reason="too late")
    # What comes back counts a moment later.
    await yard.until_dead("shop", 19)
    letters = await yard.operator.dead_letters.list("shop", Selection(error="broker.no_queue"))
    assert len(letters) == 19
    assert all(letter.is_replayable and letter.fault.replays == 1 for letter in letters)

    yard.mended.add("shop")
    await yard.services["shop"].start()
    await yard.replay("shop")

    async def the_others_have_run() -> bool:
        return len(await yard.effects()) >= 19

    await eventually(the_others_have_run, what="what came back has run")
    await yard.settled()
    # What lay in the deleted queue went with it: one never deletes a business queue.
    effects = await yard.effects()
    assert set(effects.values()) == {1}
    assert len(set(numbers) - set(effects)) == 1


async def test_a_full_queue_stops_the_pass_and_nothing_is_lost(node: PrivateNode, tmp_path: Path) -> None:
    async with open_graveyard(tmp_path, node.url) as yard:
        numbers = await yard.bury(45)
        await yard.services["shop"].stop()
        commands = yard.operator.names.queue("shop", "commands")
        policy = '{"max-length": 5, "overflow": "reject-publish"}'
        await asyncio.to_thread(node.ctl, "set_policy", "full", f"^{commands}$", policy, "--apply-to", "queues")
        await eventually(lambda: policy_of(node, commands, "full"), what="the policy holds")

        stopped = await yard.replay("shop", "--stop-after", "4")

        async def nothing_is_in_between() -> bool:
            return await yard.depth("shop", "commands") + await yard.depth("shop", "dead") == 45

        await eventually(nothing_is_in_between, what="each waits or is dead")
        await asyncio.to_thread(node.ctl, "clear_policy", "full")
        await eventually(lambda: policy_of(node, commands, ""), what="the policy is gone")
        yard.mended.add("shop")
        await yard.services["shop"].start()
        again = await yard.replay("shop")

        assert stopped.code == 1
        assert "4 failures in a row" in stopped.err
        assert again.code == 0, again.err
        await assert_each_ran_once(yard, numbers)


async def test_a_filter_finds_one_of_many_and_gives_the_others_back(yard: Graveyard) -> None:
    await yard.bury(1_000)
    [wanted] = await yard.operator.dead_letters.list("shop", limit=1)
    # Whoever looked has given everything back: the next one sees it all.
    assert await yard.depth("shop", "dead") == 1_000
    yard.mended.add("shop")

    result = await yard.replay("shop", wanted.id)

    assert result.code == 0, result.err
    assert "shop: replayed 1, 0 failed, 999 stay dead" in result.out

    async def has_run() -> bool:
        return bool(await yard.effects())

    await eventually(has_run, what="the one has run")
    await yard.settled()
    assert sum((await yard.effects()).values()) == 1
    await yard.until_depth("shop", "dead", 999)


async def test_an_event_goes_back_to_the_one_subscriber_that_failed(yard: Graveyard) -> None:
    yard.mended |= {"billing", "mail"}
    await yard.users.publish(Moved(number=7))
    await yard.until_dead("shop", 1)
    await eventually(lambda: yard.runs["billing"] == yard.runs["mail"] == 1, what="the others have heard of it")
    yard.mended.add("shop")

    assert (await yard.replay("shop")).code == 0
    for name in ("shop", "billing", "mail"):
        await yard.ran([7], name)

    assert yard.runs == Counter(shop=2, billing=1, mail=1)


async def test_a_message_that_is_done_does_not_run_again(yard: Graveyard) -> None:
    numbers = await yard.bury(1)
    body = await letter_of(yard)
    yard.mended.add("shop")
    assert (await yard.replay("shop")).code == 0
    await assert_each_ran_once(yard, numbers)

    await yard.put_back(body)
    await yard.until_dead("shop", 1)
    again = await yard.replay("shop")
    await yard.settled()

    assert again.code == 0, again.err
    assert await yard.effects() == Counter(numbers)

    async def is_refused() -> bool:
        return await yard.depth("shop", "refused") == 1

    await eventually(is_refused, what="it was refused as done")


async def policy_of(node: PrivateNode, queue: str, policy: str) -> bool:
    """Tell whether a policy applies to a queue: it takes effect a moment after it was set."""
    listed = await asyncio.to_thread(node.ctl, "list_queues", "name", "policy", "--formatter", "json")
    return {row["name"]: row["policy"] or "" for row in json.loads(listed)}[queue] == policy


async def delete_queue(yard: Graveyard, part: str) -> None:
    async with yard.channel() as channel:
        await channel.queue_delete(yard.operator.names.queue("shop", part))


async def letter_of(yard: Graveyard) -> bytes:
    bodies: list[bytes] = []

    def note(delivery: Delivery) -> None:
        bodies.append(delivery.body)

    subscription = await yard.operator.transport.consume(yard.operator.names.queue("shop", "dead"), note, prefetch=1)
    await eventually(lambda: bool(bodies), what="a dead letter")
    await subscription.release()
    await yard.until_depth("shop", "dead", 1)
    return bodies[0]
