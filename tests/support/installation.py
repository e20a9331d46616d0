"""A small installation for tests of the command line: a module with a service, keys, settings, and the program itself.

In-process calls go through typer's runner, which is quick; `spawn` starts the real program, for signals, exit codes and
terminals.
"""

import json
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

from typer.testing import CliRunner, Result

from messaging.ambient import real_ambient
from messaging.cli.app import app
from messaging.core.topology import Subscriptions
from messaging.security.development_files import Contract, init_development
from tests.support.guarded import guarded
from tests.support.waiting import LIMIT_S

__all__ = ["ROOT", "SHOP", "Installation", "ask", "until"]

ROOT: Final = Path(__file__).resolve().parents[2]

SHOP: Final = '''
from pathlib import Path
from uuid import UUID
from pydantic import BaseModel
from messaging import Command, Context, Event, Reject, RemoteFailure, Request, Service

class OrderView(BaseModel):
    status: str

class UnknownOrder(RemoteFailure, name="shop.unknown_order"):
    order_id: UUID

class PlaceOrder(Command, name="shop.place_order"):
    order_id: UUID
    total_cents: int
    note: str = ""

class PlaceOrder2(Command, name="shop.place_order", version=2):
    order_id: UUID

class OrderPlaced(Event, name="shop.order_placed"):
    order_id: UUID

class GetOrder(Request[OrderView], name="shop.get_order", raises=(UnknownOrder,)):
    order_id: UUID

class Forget(Command, name="shop.forget"):
    """Nobody handles it."""

shop = Service("shop")

@shop.on_command(PlaceOrder)
async def place_order(command: PlaceOrder, context: Context) -> None:
    if command.total_cents <= 0 and not Path("mended").exists():
        raise Reject(f"total must be positive {command.note}")

@shop.on_event(OrderPlaced)
async def order_placed(event: OrderPlaced, context: Context) -> None:
    with Path("placed").open("a") as placed:
        placed.write(f"{event.order_id}\\n")

@shop.on_request(GetOrder)
async def get_order(request: GetOrder, context: Context) -> OrderView:
    if request.order_id.int == 0:
        raise UnknownOrder(order_id=request.order_id)
    return OrderView(status="placed")
'''
SUBSCRIPTIONS: Final = Subscriptions(
    commands=frozenset({("shop.place_order", 1)}),
    events=frozenset({("shop.order_placed", 1)}),
    requests=frozenset({("shop.get_order", 1)}),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Installation:
    """A folder with `shop.py`, `keys/`, and the environment that goes with them.

    Attributes:
        folder: Where everything is; the working folder of the program.
        broker_url: The broker.
        namespace: Of this installation alone.
    """

    folder: Path
    broker_url: str
    namespace: str = field(default_factory=lambda: f"t{uuid4().hex[:12]}")

    @classmethod
    def make(cls, folder: Path, *, broker_url: str) -> "Installation":
        """Write the module and development keys into a folder."""
        (folder / "shop.py").write_text(SHOP)
        contract = Contract(handles=SUBSCRIPTIONS)
        init_development(folder / "keys", {"shop": contract}, ambient=real_ambient(), operator="dev")
        return cls(folder=folder, broker_url=broker_url)

    @property
    def keys(self) -> Path:
        """The keys folder."""
        return self.folder / "keys"

    @property
    def environment(self) -> dict[str, str]:
        """The settings, as the environment holds them."""
        return {
            "MESSAGING_BROKER_URL": self.broker_url,
            "MESSAGING_KEYS": str(self.keys),
            "MESSAGING_NAMESPACE": self.namespace,
            "MESSAGING_CONNECT_TIMEOUT_S": "10",
            "PYTHONPATH": str(ROOT),
            "PATH": "/usr/bin:/bin",
            "TERM": "xterm",
        }

    def spawn(self, *arguments: str, changes: Mapping[str, str] | None = None, **options: Any) -> subprocess.Popen[str]:
        """Start the real program; its output goes to pipes unless `options` say otherwise."""
        options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "stdin": subprocess.DEVNULL, **options}
        return subprocess.Popen(
            guarded(sys.executable, "-m", "messaging", *arguments),
            cwd=self.folder,
            env={**self.environment, **(changes or {})},
            text=True,
            **options,
        )

    def run(
        self, *arguments: str, changes: Mapping[str, str] | None = None, said: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run the real program to its end, within a minute."""
        return subprocess.run(
            guarded(sys.executable, "-m", "messaging", *arguments),
            cwd=self.folder,
            env={**self.environment, **(changes or {})},
            text=True,
            capture_output=True,
            input=said,
            timeout=LIMIT_S,
            check=False,
        )

    def call(self, *arguments: str, changes: Mapping[str, str] | None = None, said: str | None = None) -> Result:
        """Run the program inside this process; the caller's working folder is what it sees."""
        return CliRunner().invoke(app, list(arguments), input=said, env={**self.environment, **(changes or {})})

    def json(self, *arguments: str) -> Any:
        """Run the program inside this process and return the JSON that it prints."""
        result = self.call(*arguments)
        assert result.exit_code in (0, 1, 2), result.stderr
        return json.loads(result.stdout)


def ask(port: int, path: str = "/readyz") -> dict[str, Any]:
    """Return what a health port answers; an empty map while nobody listens."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
            state = json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            state = json.load(error)
    except OSError:
        return {}
    assert isinstance(state, dict)
    return state


def until(holds: Callable[[], object], *, what: str = "the condition", timeout_s: float = 90.0) -> None:
    """Wait until something holds; for other processes, which no event loop of ours can watch."""
    deadline_s = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < deadline_s, f"not within {timeout_s} s: {what}"
        time.sleep(0.05)
