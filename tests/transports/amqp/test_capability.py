from collections.abc import Callable
from typing import Any

import aiormq
import pytest
import structlog.testing

import messaging.transports.amqp.capability as tested
from messaging.transports.amqp.capability import FastPath, obstacle
from messaging.transports.amqp.channel import open_channel
from messaging.transports.amqp.connection import Connection
from messaging.transports.amqp.plain import PlainChannel
from messaging.transports.amqp.splitter import Splitter

pytestmark = pytest.mark.broker


async def fresh(connection: Connection) -> tuple[aiormq.Channel, Splitter]:
    splitter = connection.splitter
    assert splitter is not None
    return await connection.open_channel(confirms=True), splitter


async def test_what_is_installed_has_no_obstacle(connection: Connection) -> None:
    assert obstacle(*await fresh(connection)) is None


@pytest.mark.parametrize("found", ["7.1.9", "8.0.0", "6.9", "unknown", ""])
async def test_version_that_was_not_tested_is_an_obstacle(
    connection: Connection, monkeypatch: pytest.MonkeyPatch, found: str
) -> None:
    monkeypatch.setattr(tested, "version", lambda _: found)

    assert "aiormq" in (obstacle(*await fresh(connection)) or "")


@pytest.mark.parametrize("found", ["7.2.0", "7.2.4", "7.10.1"])
async def test_later_versions_of_the_tested_line_are_none(
    connection: Connection, monkeypatch: pytest.MonkeyPatch, found: str
) -> None:
    monkeypatch.setattr(tested, "version", lambda _: found)

    assert obstacle(*await fresh(connection)) is None


async def test_socket_that_is_not_ours_is_an_obstacle(connection: Connection) -> None:
    channel, splitter = await fresh(connection)

    assert "factory" in (obstacle(channel, Splitter(splitter._rest_of)) or "")


def _numbered(channel: Any) -> None:
    channel.number = "1"


def _published(channel: Any) -> None:
    channel.delivery_tag = 3


def _without_consumers(channel: Any) -> None:
    channel.consumers = []


def _framed(channel: Any) -> None:
    channel.connection = Framed(0)


def _untuned(channel: Any) -> None:
    channel.connection = None


class Framed:
    """A connection whose frames have this size."""

    def __init__(self, frame_max: int) -> None:
        self.connection_tune = self
        self.frame_max = frame_max


@pytest.mark.parametrize("change", [_numbered, _published, _without_consumers, _framed, _untuned])
async def test_channel_that_is_not_as_expected_is_an_obstacle(
    connection: Connection, change: Callable[[Any], None]
) -> None:
    channel, splitter = await fresh(connection)
    before = (channel.number, channel.connection)

    change(channel)

    assert obstacle(channel, splitter)
    channel.number, channel.connection = before


async def test_obstacle_is_told_once_and_the_plain_path_does_the_work(
    connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tested, "version", lambda _: "9.0.0")

    with structlog.testing.capture_logs() as logs:
        channels = [await open_channel(connection, confirms=True) for _ in range(3)]

    assert all(isinstance(channel, PlainChannel) for channel in channels)
    assert [entry["event"] for entry in logs] == ["fast_path.refused"]
    assert "MESSAGING_FAST=0" in logs[0]["remedy"]
    for channel in channels:
        await channel.aclose()


def test_switch_that_is_off_says_nothing() -> None:
    switch = FastPath(is_on=False)

    with structlog.testing.capture_logs() as logs:
        switch.refuse("whatever")

    assert logs == []
    assert not switch.is_on
