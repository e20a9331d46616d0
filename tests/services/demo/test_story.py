"""The demo as its user runs it: a process that tells a true story, ends by itself, and leaves nothing behind."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from messaging.cli.broker_node import PrivateNode
from messaging.cli.broker_probe import free_port
from services.demo.settings import environment_with
from tests.support.broker import Broker
from tests.support.guarded import guarded
from tests.support.installation import until
from tests.support.leftovers import processes_of
from tests.support.waiting import LIMIT_S

pytestmark = pytest.mark.timeout(300)

TITLES = (
    "A broker",
    "Three services, each with keys of its own, and an operator",
    "A command: register a user over HTTP",
    "A command and its event, fanned out: place an order",
    "A request and its answer",
    "A failure: the users service is stopped, an order comes in",
    "The dead letter, opened with the operator's key",
    "Mended and replayed",
    "The end: everything is drained and stopped",
)


def command_in(folder: Path, *options: str) -> list[str]:
    return [sys.executable, "-m", "services.demo", "--folder", str(folder), *options]


def run(folder: Path, *options: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command_in(folder, *options),
        env=environment_with(variables),
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


def assert_told_whole(done: subprocess.CompletedProcess[str], folder: Path) -> None:
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    places = [done.stdout.find(f"{number:>2}  {title}") for number, title in enumerate(TITLES, start=1)]
    assert -1 not in places
    assert places == sorted(places)
    for words in (
        "neither 'Darjeeling, first flush' nor the user's id stands anywhere in them",
        "orders raised orders.order_not_found",
        "attempts 1 and 2: RequestTimeoutError;  again in 1 s",
        "attempt 3: RequestTimeoutError;  again in 5 s",
        "attempt 4: RequestTimeoutError;  given up and buried",
        "no answer to users.get_user/1 within 0.5 s",
        '"item": "Analytical Engine", "total_cents": 1700000',
        "valid: the letter and the command in it",
        'the order succeeded:  {"item": "Analytical Engine", "total_cents": 1700000, "status": "placed"}',
        "no dead letter of it is left",
    ):
        assert words in done.stdout
    assert_nothing_is_left(folder)


def assert_nothing_is_left(folder: Path) -> None:
    """Helpers that Erlang starts notice a moment later that it is gone."""
    until(lambda: processes_of(folder) == {}, what="no process of the demo is left")


@pytest.fixture
def interrupted_at(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[subprocess.Popen[str]]:
    """A demo, read up to the failure of the sixth step; on a private broker unless the test says otherwise."""
    options = ["--broker", getattr(request, "param", "auto")]
    with subprocess.Popen(
        guarded(*command_in(tmp_path, *options)),
        env=environment_with({}),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as demo:
        try:
            assert demo.stdout is not None
            for line in demo.stdout:
                if "users stopped" in line:
                    break
            yield demo
        finally:
            demo.kill()


def test_the_embedded_demo_tells_the_whole_story(tmp_path: Path) -> None:
    done = run(tmp_path, "--broker", "embedded")

    assert "the embedded broker, inside this one process, as asked" in done.stdout
    assert_told_whole(done, tmp_path)


@pytest.mark.broker
def test_the_demo_on_a_private_rabbitmq_tells_the_whole_story(tmp_path: Path) -> None:
    done = run(tmp_path)

    assert "a private RabbitMQ on 127.0.0.1:" in done.stdout
    assert done.stdout.count("process ") >= 5
    assert_told_whole(done, tmp_path)


@pytest.mark.broker
def test_the_demo_uses_the_broker_it_is_given_and_leaves_it_clean(tmp_path: Path, node: PrivateNode) -> None:
    done = run(tmp_path, MESSAGING_BROKER_URL=node.url)

    assert "this is the RabbitMQ of MESSAGING_BROKER_URL" in done.stdout
    assert_told_whole(done, tmp_path)
    queues = node.ctl("list_queues", "name").splitlines()
    exchanges = node.ctl("list_exchanges", "name").splitlines()
    # Queues for replies and the wiretap's copies go by themselves, half an hour and a minute later.
    by_themselves = re.compile(r"demo-[0-9a-f]+\.([a-z.]+\.replies\.[0-9a-f]{16}|wiretap)")
    assert [name for name in queues if name.startswith("demo-") and not by_themselves.fullmatch(name)] == []
    assert [name for name in exchanges if name.startswith("demo-")] == []


@pytest.mark.broker
@pytest.mark.parametrize("signal_number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_demo_stops_everything_and_says_so(
    tmp_path: Path, interrupted_at: subprocess.Popen[str], signal_number: signal.Signals
) -> None:
    assert len(processes_of(tmp_path)) >= 4

    interrupted_at.send_signal(signal_number)
    _, told = interrupted_at.communicate(timeout=LIMIT_S)

    assert interrupted_at.returncode == 130
    assert told == "error: interrupted; everything that was started is stopped\n"
    assert_nothing_is_left(tmp_path)


@pytest.mark.parametrize("interrupted_at", ["embedded"], indirect=True)
def test_an_interrupted_embedded_demo_ends_as_quietly(interrupted_at: subprocess.Popen[str]) -> None:
    interrupted_at.send_signal(signal.SIGINT)
    _, told = interrupted_at.communicate(timeout=LIMIT_S)

    assert interrupted_at.returncode == 130
    assert told == "error: interrupted; everything that was started is stopped\n"


@pytest.mark.broker
def test_a_killed_demo_takes_its_programs_along(tmp_path: Path, interrupted_at: subprocess.Popen[str]) -> None:
    os.kill(interrupted_at.pid, signal.SIGKILL)
    interrupted_at.communicate(timeout=LIMIT_S)

    assert_nothing_is_left(tmp_path)


def test_a_broker_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    port = free_port()

    done = run(tmp_path, MESSAGING_BROKER_URL=f"amqp://guest:guest@127.0.0.1:{port}/")

    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert f"127.0.0.1:{port}" in done.stderr
    assert_nothing_is_left(tmp_path)


@pytest.mark.broker
def test_a_wrong_password_is_one_line(tmp_path: Path, broker: Broker) -> None:
    done = run(tmp_path, MESSAGING_BROKER_URL=broker.url.replace("guest:guest", "guest:wrong"))

    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert "refuse" in done.stderr
    assert_nothing_is_left(tmp_path)


def test_two_demos_in_one_folder_do_not_mix(tmp_path: Path) -> None:
    with subprocess.Popen(
        guarded(*command_in(tmp_path, "--broker", "embedded")),
        env=environment_with({}),
        stdout=subprocess.PIPE,
        text=True,
    ) as first:
        try:
            assert first.stdout is not None
            while "all are ready" not in first.stdout.readline():
                pass
            # It stays where it is, however long the second one takes to start.
            first.send_signal(signal.SIGSTOP)

            second = run(tmp_path, "--broker", "embedded")
        finally:
            first.kill()

    assert second.returncode == 1
    assert "another demo runs in" in second.stderr
