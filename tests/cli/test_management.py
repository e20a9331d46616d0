"""The management API as it answers, and as it must not be believed."""

import http.server
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from messaging.cli.management import Management, management_of
from messaging.core.topology import Binding
from messaging.core.topology_plan import TYPE
from messaging.errors import ConfigurationError, ConnectionLostError
from messaging.settings import Settings
from tests.support.installation import Installation
from tests.support.managed import ManagedNode


@contextmanager
def answering(answers: dict[str, tuple[int, bytes]]) -> Iterator[str]:
    """Serve fixed answers by path, and 404 for others."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body = answers.get(self.path, (404, b"{}"))
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://guest:guest@127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize("url", ["ftp://127.0.0.1", "127.0.0.1:15672", "http://"])
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(ConfigurationError, match="MESSAGING_MANAGEMENT_URL"):
        Management(url, vhost="/")


@pytest.mark.parametrize(
    ("status", "body", "words"),
    [
        (401, b"{}", "refuses the user"),
        (403, b"{}", "tag `monitoring`"),
        (500, b"{}", "with 500"),
        (200, b"<html>", "no JSON"),
        (200, b'{"error": "x"}', "something else"),
        (200, b"[1]", "something else"),
    ],
)
def test_what_it_answers_instead_is_said(status: int, body: bytes, words: str) -> None:
    with answering({"/api/queues/%2F": (status, body)}) as url, pytest.raises(ConfigurationError, match=words):
        Management(url, vhost="/").queues()


def test_nobody_there_is_no_connection() -> None:
    with pytest.raises(ConnectionLostError, match="rabbitmq_management"):
        Management("http://127.0.0.1:1", vhost="/").version()


def test_stable_flags_that_are_off_are_listed() -> None:
    flags = [
        {"name": "b", "state": "disabled", "stability": "stable"},
        {"name": "a", "state": "disabled"},
        {"name": "c", "state": "enabled", "stability": "stable"},
        {"name": "d", "state": "disabled", "stability": "experimental"},
    ]
    with answering({"/api/feature-flags": (200, json.dumps(flags).encode())}) as url:
        assert Management(url, vhost="/").disabled_flags() == ["a", "b"]


@pytest.mark.parametrize("status", [401, 403])
def test_flags_that_the_user_may_not_see_are_no_trouble(status: int) -> None:
    with answering({"/api/feature-flags": (status, b"{}")}) as url:
        assert Management(url, vhost="/").disabled_flags() is None


def test_exchanges_that_a_policy_rules_come_with_what_it_says_of_the_rest() -> None:
    exchanges = [
        {"name": "commands", "policy": "elsewhere"},
        {"name": "events", "policy": "federated"},
        {"name": "odd", "policy": "gone meanwhile"},
        {"name": "free"},
    ]
    policies = [
        {"name": "elsewhere", "definition": {"alternate-exchange": "a"}},
        {"name": "federated", "definition": {"federation-upstream-set": "all"}},
    ]
    answers = {
        "/api/exchanges/%2F": (200, json.dumps(exchanges).encode()),
        "/api/policies/%2F": (200, json.dumps(policies).encode()),
    }

    with answering(answers) as url:
        found = Management(url, vhost="/").ruled_exchanges()

    assert [(one.name, one.alternate) for one in found] == [("commands", "a"), ("events", None), ("odd", None)]


def test_each_answer_tells_the_time() -> None:
    with answering({}) as url:
        found_ms = Management(url, vhost="/").now_ms()

    assert found_ms is not None
    assert abs(found_ms / 1000 - time.time()) < 60


def test_settings_without_it_name_none_and_it_is_never_shown() -> None:
    assert management_of(Settings()) is None
    found = management_of(Settings(broker_url="amqp://h/some%2Fvhost", management_url="http://u:secret@127.0.0.1"))

    assert found is not None
    assert found.address == "127.0.0.1:15672"
    assert "secret" not in repr(Settings(management_url="http://u:secret@127.0.0.1"))


@pytest.mark.broker
def test_a_real_one_tells_what_exists(managed: Installation, managed_node: ManagedNode) -> None:
    managed.call("topology", "apply", "shop:shop")

    found = Management(managed_node.management_url, vhost="/").existing()

    namespace = managed.namespace
    queue = f"{namespace}.shop.commands"
    assert found.queues[queue]["x-delivery-limit"] == 100
    assert found.exchanges[f"{namespace}.commands"] == {TYPE: "topic"}
    assert found.bindings is not None
    wanted = Binding(exchange=f"{namespace}.commands", queue=queue, routing_key="shop.place_order.v1")
    assert wanted in found.bindings
