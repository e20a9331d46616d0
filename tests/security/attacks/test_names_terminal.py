"""Names that look like others, and text that would like to steer an operator's terminal."""

import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

import msgpack
import pytest

from messaging import Command, ConfigurationError, Service
from messaging.ambient import real_ambient
from messaging.cli.logs import LogFormat, LogLevel, configure_logs
from messaging.core.envelope import CODEC_MSGPACK, Envelope, Kind
from messaging.core.fault import Cause, Fault
from messaging.core.topology import Names, dead_routing_key
from messaging.security.content import pack_fault
from messaging.security.development import identity_entry
from messaging.security.keyfile import keyring_file, load_keyring
from messaging.security.outer import leaf_of
from messaging.security.policy import matches
from messaging.security.seal import Sealer
from messaging.security.suite import fault_id
from messaging.security.trust import open_trust
from messaging.transports.base import Transport
from messaging.transports.memory import MemoryBroker, MemoryTransport
from tests.cli.test_render import HOSTILE, harmful
from tests.support.arena import Arena, PlaceOrder
from tests.support.exhibits import Exhibits
from tests.support.installation import SUBSCRIPTIONS, Installation
from tests.support.realm import resign

NAMES_REFUSED: Final = (
    "orders.place_order\n",
    "orders.place_order ",
    "orders.place-order",
    "orders.Place_order",
    "orders.pla\u0441e_order",
    "orders..place_order",
    "orders.",
    ".orders",
    "orders",
    "",
    "ops.place_order",
    "event.place_order",
    "group.place_order",
    "amqx.place_order",
    "orders.place_order\u0000",
    "orders.9place",
    "o" * 33 + ".place_order",
    "orders." + "a" * 120,
)
VERSIONS_REFUSED: Final = (
    *("0", "01", "1\n", " 1", "+1", "1_0", "\u0661", "\uff11", "100000", "-1", "1.0", "", "v1", "1/1"),
)
# Another script's letters that look like those of ASCII.
CYRILLIC_O, CYRILLIC_E = "\u043e", "\u0435"
SERVICES_REFUSED: Final = (
    *("Orders", "orders\n", "ops", "event", "group", "amq.x", f"{CYRILLIC_O}rders", "a" * 33, "", "a.b"),
)
SENDERS_REFUSED: Final = (
    *("Users", "users\n", "ops:", "ops:Alice", "ops:alice\n", "group:ops", "event", f"us{CYRILLIC_E}rs"),
)


@pytest.mark.attack(85)
@pytest.mark.parametrize("name", NAMES_REFUSED)
def test_a_class_cannot_take_such_a_name(name: str) -> None:
    with pytest.raises(ConfigurationError):
        type("Named", (Command,), {"__module__": __name__}, name=name)


@pytest.mark.attack(85)
@pytest.mark.parametrize("version", [0, -1, 100_000, True, "1", 1.0])
def test_a_class_cannot_take_such_a_version(version: object) -> None:
    with pytest.raises(ConfigurationError):
        type("Named", (Command,), {"__module__": __name__}, name="orders.place_order", version=version)


@pytest.mark.attack(85)
@pytest.mark.parametrize("name", SERVICES_REFUSED)
def test_a_service_cannot_take_such_a_name(name: str) -> None:
    with pytest.raises(ConfigurationError):
        Service(name)


@pytest.mark.attack(85)
async def test_such_names_in_a_header_are_malformed_although_signed(arena: Arena) -> None:
    signer = arena.realm.signer("users")
    types = [f"{name}/1" for name in NAMES_REFUSED]
    types += [f"orders.place_order/{version}" for version in VERSIONS_REFUSED]
    named = [resign(arena.sealed(), signer, fields={2: typ}) for typ in types if len(typ.encode()) <= 256]
    owner = arena.sealed()
    fitting = [resign(owner, signer, fields={2: typ, 7: typ.replace("/", ".v")}) for typ in types if len(typ) < 250]

    outcome = await arena.struck(*named, *fitting)

    outcome.assert_forged("malformed", times=len(named) + len(fitting))


@pytest.mark.attack(85)
@pytest.mark.parametrize("sender", SENDERS_REFUSED)
async def test_such_senders_in_a_header_are_malformed(arena: Arena, sender: str) -> None:
    outcome = await arena.struck(resign(arena.sealed(), arena.realm.signer("users"), fields={3: sender}))

    outcome.assert_forged("malformed")


@pytest.mark.attack(85)
@pytest.mark.parametrize(
    ("section", "name"),
    [
        ("services", "Orders"),
        ("services", "orders\n"),
        ("services", "ops"),
        ("services", f"{CYRILLIC_O}rders"),
        ("operators", "alice"),
        ("operators", "ops:Alice"),
        ("groups", "ops"),
        ("groups", "group:ops\n"),
    ],
)
async def test_such_names_spoil_a_bundle(arena: Arena, section: str, name: str) -> None:
    empty: dict[str, Any] = {"sign": [], "enc": []} if section != "groups" else {"enc": [], "members": []}
    raw = arena.realm.change(lambda payload: payload[section].update({name: empty}))

    with pytest.raises(ConfigurationError):
        arena.realm.stores["orders"].replace(raw)


@pytest.mark.attack(85)
async def test_a_prefix_covers_what_lies_below_it_and_nothing_beside_it(arena: Arena) -> None:
    admin = arena.realm.new_keyring("orders_admin")

    def add(payload: dict[str, Any]) -> None:
        payload["services"]["orders_admin"] = identity_entry(admin)

    arena.realm.publish(add)
    policy = arena.realm.stores["orders"].current.policy

    assert policy.rule_for("users", Kind.COMMAND, "orders.place_order", "orders") is not None
    assert policy.rule_for("users", Kind.COMMAND, "orders_admin.wipe", "orders_admin") is None
    assert policy.rule_for("users", Kind.COMMAND, "orders_admin.wipe", "orders") is None
    assert matches("orders.*", "orders.a.b")
    assert not matches("orders.*", "orders")
    assert not matches("orders.*", "orders_admin.wipe")
    assert not matches("orders.place_order", "orders.place_order.more")


# ---- the terminal


@pytest.fixture(autouse=True)
def _loggers_as_before() -> Iterator[None]:
    """The program configures the process's logging; that belongs to one test."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = handlers, level
    for name in ("aio_pika", "aiormq"):
        logging.getLogger(name).setLevel(logging.NOTSET)


@pytest.fixture
def memory_shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> "Desk":
    """An operator's desk: the command line, with the dead letters of a service on an embedded broker."""
    monkeypatch.chdir(tmp_path)
    return Desk(Installation.make(tmp_path, broker_url="amqp://localhost/"), monkeypatch)


class Desk:
    """The command line on a broker in this process, whose dead letters an attacker wrote."""

    def __init__(self, made: Installation, patch: pytest.MonkeyPatch) -> None:
        self.made = made
        self.names = Names(made.namespace)
        self.broker = MemoryBroker(is_manual=True)
        self.broker.declare(self.names.of_service("shop", SUBSCRIPTIONS))
        self.ambient = real_ambient()
        patch.setattr("messaging.assembly._transport", self._transport)
        self.keyring = load_keyring(made.keys / keyring_file("shop"))
        trust = open_trust(self.keyring, made.keys / "trust.bundle", ambient=self.ambient)
        self.sealer = Sealer(self.keyring, trust, self.names, ambient=self.ambient)

    def _transport(self, *_: object, **__: object) -> Transport:
        return MemoryTransport(self.broker, ambient=self.ambient)

    def sealed(self, note: str, **changes: Any) -> bytes:
        """Return a command of the shop to itself."""
        payload = bytes(msgpack.packb({"order_id": str(uuid4()), "total_cents": 1, "note": note, note: note}))
        return self.sealer.seal(self._envelope(Kind.COMMAND, payload, **changes), routing_key="shop.place_order.v1")

    def bury(self, hostile: str) -> None:
        """Put a dead letter there whose every free text is hostile; the service itself signed it."""
        original = self.sealed(hostile, headers={hostile: hostile})
        fault = Fault(
            error=hostile,
            reason=hostile,
            fields={hostile: hostile},
            chain=(Cause(error=hostile, reason=hostile),),
            trace=hostile,
            service=hostile,
            instance=hostile,
            host=hostile,
            service_version=hostile,
            handler=hostile,
            message_name=hostile,
            message_id=hostile,
            fingerprint=hostile,
            traceparent=hostile,
        )
        leaf = leaf_of(original)
        letter = self._envelope(
            Kind.FAULT, pack_fault(original, fault.to_map()), id=fault_id(leaf, 0), bind=leaf, audience="shop"
        )
        self.broker.inject(
            self.names.dead, dead_routing_key("shop", None),
            self.sealer.seal(letter, routing_key=dead_routing_key("shop", None)),
        )  # fmt: skip

    def _envelope(self, kind: Kind, payload: bytes, **changes: Any) -> Envelope:
        now_ms = self.ambient.now_ms()
        values: dict[str, Any] = {
            "id": self.ambient.new_id(),
            "kind": kind,
            "name": "shop.place_order",
            "version": 1,
            "sender": "shop",
            "audience": "shop",
            "issued_at_ms": now_ms,
            "expires_at_ms": now_ms + 3_600_000,
            "payload": payload,
            "codec": CODEC_MSGPACK,
        }
        return Envelope(**(values | changes))


# Half a surrogate pair cannot be in a message at all.
TEXTS: Final = tuple(text for text in HOSTILE if "\ud800" not in text)


@pytest.mark.attack(86)
@pytest.mark.parametrize("hostile", TEXTS, ids=ascii)
def test_no_control_character_of_a_dead_letter_leaves(memory_shop: Desk, exhibits: Exhibits, hostile: str) -> None:
    desk = memory_shop
    desk.bury(hostile)

    listed = desk.made.call("dead", "list")
    records = desk.made.json("dead", "list", "--json")
    said = [
        listed,
        desk.made.call("dead", "groups"),
        desk.made.call("dead", "show", records[0]["id"]),
        desk.made.call("dead", "show", records[0]["id"], "--json"),
        desk.made.call("dead", "replay", "shop", "--reason", f"why: {hostile}", "--dry-run"),
        desk.made.call("dead", "discard", "shop", "--reason", "gone", "--yes"),
    ]

    assert records[0]["fault"]["reason"] == hostile
    for result in said:
        assert result.exit_code in (0, 1), result.output
        assert harmful(result.stdout) == set()
        assert harmful(result.stderr) == set()
        exhibits.write(result.stderr)


@pytest.mark.attack(86)
def test_no_control_character_of_an_unproven_letter_leaves(memory_shop: Desk) -> None:
    desk = memory_shop
    body = desk.sealed("x")
    for junk in (b"\x1b[2J\x07", os.urandom(200), body[:-1] + b"\x1b", b"", body[:100] + b"\x1b[31m" + body[105:]):
        desk.broker.inject(desk.names.undeliverable_exchange("shop"), "x", junk, headers={"x-attempt": 3})

    records = desk.made.json("dead", "list", "--json")
    results = [desk.made.call("dead", "list"), *(desk.made.call("dead", "show", one["id"]) for one in records)]

    assert len(records) == 5
    assert not any(record["verified"] or record["replayable"] for record in records)
    for result in results:
        assert harmful(result.stdout) == set()
        assert harmful(result.stderr) == set()


@pytest.mark.attack(86)
@pytest.mark.parametrize("hostile", TEXTS, ids=ascii)
def test_no_control_character_of_a_message_file_leaves(
    memory_shop: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hostile: str
) -> None:
    desk = memory_shop
    monkeypatch.setattr(
        "messaging.security.header_writer._extensions", lambda envelope, version: {"bv": version, "x": hostile}
    )
    good, bad = tmp_path / "message.bin", tmp_path / "bad.bin"
    good.write_bytes(desk.sealed(hostile, headers={hostile: hostile}))
    bad.write_bytes(hostile.encode())

    said = [
        desk.made.call("inspect", str(good)),
        desk.made.call("inspect", str(good), "--json"),
        desk.made.call("open", str(good), "--as", "shop"),
        desk.made.call("open", str(good), "--as", "shop", "--json"),
        desk.made.call("inspect", str(bad)),
        desk.made.call("inspect", str(tmp_path / "no-such-file\x1b[31m")),
        desk.made.call("open", str(good), "--as", "\x1b[31m"),
    ]

    for result in said:
        assert result.exception is None or isinstance(result.exception, SystemExit)
        assert harmful(result.stdout) == set()
        assert harmful(result.stderr) == set()


@pytest.mark.attack(86)
@pytest.mark.parametrize("format_", list(LogFormat))
async def test_no_control_character_of_a_message_reaches_a_log(
    format_: LogFormat, capsys: pytest.CaptureFixture[str], exhibits: Exhibits
) -> None:
    hostile = "".join(TEXTS)

    async def fails(_message: object, _context: object) -> None:
        raise ValueError(hostile)

    configure_logs(format_, LogLevel.DEBUG)
    async with Arena() as arena:
        arena.behave["orders"] = fails
        body = arena.sealed(PlaceOrder(note=hostile), headers={hostile: hostile})
        labelled = resign(arena.sealed(), arena.realm.signer("users"), fields={16: {"x": hostile}})
        await arena.struck(body, labelled)
        await arena.advance(1_000)
        arena.behave.clear()
        await arena.struck(arena.realm.replay(body, headers={"reason": hostile}))
        assert arena.counts("orders")["handled"] == 1

    said = capsys.readouterr()
    assert "delivery.buried" in said.err
    assert harmful(said.err) == set()
    assert harmful(said.out) == set()
    exhibits.write(said.err)
