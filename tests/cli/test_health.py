"""`health`: one question, one exit code."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from messaging.cli.broker_probe import free_port
from tests.support.installation import Installation


@contextmanager
def answering(status: int, body: bytes) -> Iterator[str]:
    """Run an HTTP server that gives one answer to everything."""

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with HTTPServer(("127.0.0.1", 0), Answer) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield str(server.server_port)
        finally:
            server.shutdown()
            thread.join()


class TestOfAService:
    def test_ready(self, offline: Installation) -> None:
        state = {"live": True, "ready": True, "problems": [], "details": {"service": "shop"}}
        with answering(200, json.dumps(state).encode()) as port:
            result = offline.call("health", "--port", port)
            shown = offline.json("health", "--port", port, "--json")

        assert result.exit_code == 0
        assert result.stdout.startswith("ready")
        assert "service=shop" in result.stdout
        assert shown == state

    def test_not_ready_and_why(self, offline: Installation) -> None:
        state = {"live": True, "ready": False, "problems": ["the link is \x1b[31mdown"], "details": {}}
        with answering(503, json.dumps(state).encode()) as port:
            result = offline.call("health", "--port", port)

        assert result.exit_code == 1
        assert "the link is \\x1b[31mdown" in result.stderr

    def test_nobody_there(self, offline: Installation) -> None:
        result = offline.call("health", "--port", str(free_port()))

        assert result.exit_code == 1
        assert "--health-port" in result.stderr

    @pytest.mark.parametrize("body", [b"<html>", b"[]", b'{"ready": "yes"}'])
    def test_somebody_else_there(self, offline: Installation, body: bytes) -> None:
        with answering(200, body) as port:
            assert offline.call("health", "--port", port).exit_code == 1


class TestOfTheBroker:
    @pytest.mark.broker
    def test_it_takes_us(self, quiet: Installation) -> None:
        shown = quiet.json("health", "--json")

        assert shown["ready"] is True
        assert shown["details"]["product"] == "RabbitMQ"

    def test_nobody_there(self, offline: Installation) -> None:
        result = offline.call("health", changes={"MESSAGING_CONNECT_TIMEOUT_S": "0.3"})

        assert result.exit_code == 3
        assert "no broker at" in result.stderr
