"""Bundles, key files and keys: what decides about trust is itself not trusted before it was checked."""

import asyncio
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import msgpack
import pytest

from messaging import ConfigurationError, Context, Service, Settings
from messaging.ambient import real_ambient
from messaging.core.topology import Subscriptions, routing_key
from messaging.security import datakeys, suite
from messaging.security.bundle_format import sign_bundle
from messaging.security.development import key_entry
from messaging.security.development_files import Contract, init_development
from messaging.security.keyblock import parse_block
from messaging.security.keyfile import keyring_file, load_keyring, write_keyring
from messaging.security.keyring import Keyring
from messaging.security.keys import SigningKey
from messaging.security.outer import split_parts
from messaging.security.strict_json import dump_json
from messaging.security.suite import ED25519, X25519, key_id
from tests.security.test_keys import SMALL_ED25519
from tests.support.arena import Arena, PlaceOrder
from tests.support.exhibits import Exhibits
from tests.support.logs import Logs
from tests.support.realm import DAY_MS, START_MS, Realm
from tests.support.waiting import eventually

Payload = dict[str, Any]
Edit = Callable[[Payload], object]

CHEAP: Final = 1 << 10
PLACE_ORDER: Final = routing_key("orders.place_order", 1)
SMALL_X25519: Final = (
    bytes(32),
    b"\x01" + bytes(31),
    bytes.fromhex("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"),
    bytes.fromhex("5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157"),
    b"\xec" + b"\xff" * 30 + b"\x7f",
)


async def assert_refused_and_kept(arena: Arena, raw: bytes) -> None:
    """Check that a bundle is refused by a running service, which goes on under the last good one."""
    store = arena.realm.stores["orders"]
    before = store.current

    with pytest.raises(ConfigurationError):
        store.replace(raw)

    assert store.current is before
    (await arena.struck(arena.sealed())).assert_ran()


@pytest.mark.attack(27)
def test_all_14_small_order_keys_are_on_the_list() -> None:
    assert len(SMALL_ED25519) == len(set(SMALL_ED25519)) == 14


@pytest.mark.attack(27)
@pytest.mark.parametrize("raw", SMALL_ED25519, ids=[raw.hex()[:8] + raw.hex()[-2:] for raw in SMALL_ED25519])
async def test_a_small_order_signing_key_spoils_the_bundle(arena: Arena, raw: bytes) -> None:
    def add(payload: Payload) -> None:
        payload["services"]["billing"]["sign"].append(key_entry(key_id(ED25519, "test", raw), ED25519, raw))

    await assert_refused_and_kept(arena, arena.realm.change(add))


@pytest.mark.attack(27)
@pytest.mark.parametrize("raw", [*SMALL_X25519, b"\x09" + bytes(30) + b"\x80", b"\xee" + b"\xff" * 30 + b"\x7f"])
async def test_a_weak_or_ambiguous_encryption_key_spoils_the_bundle(arena: Arena, raw: bytes) -> None:
    def add(payload: Payload) -> None:
        payload["services"]["billing"]["enc"].append(key_entry(key_id(X25519, "test", raw), X25519, raw))

    await assert_refused_and_kept(arena, arena.realm.change(add))


@pytest.mark.attack(63)
async def test_a_forged_bundle_is_refused(arena: Arena) -> None:
    realm, stranger = arena.realm, SigningKey.generate("test")
    good = realm.change()

    await assert_refused_and_kept(arena, sign_bundle(realm.payload, [stranger]))
    await assert_refused_and_kept(arena, sign_bundle(realm.payload, []))
    for at in range(0, len(good), 97):
        await assert_refused_and_kept(arena, good[:at] + bytes((good[at] ^ 1,)) + good[at + 1 :])
    for size in (0, 1, len(good) // 2, len(good) - 1):
        await assert_refused_and_kept(arena, good[:size])
    await assert_refused_and_kept(arena, good + b"\x00")


@pytest.mark.attack(63)
async def test_an_older_bundle_is_refused(arena: Arena) -> None:
    older = arena.realm.change()
    newer = arena.realm.change()
    arena.realm.stores["orders"].replace(newer)

    await assert_refused_and_kept(arena, older)


@pytest.mark.attack(63)
async def test_the_same_version_with_other_bytes_is_refused(arena: Arena) -> None:
    realm = arena.realm
    realm.publish()
    other = sign_bundle(realm.payload | {"expires": realm.payload["expires"] + 1}, [realm.root])

    await assert_refused_and_kept(arena, other)


@pytest.mark.attack(63)
async def test_an_expired_bundle_is_refused(arena: Arena) -> None:
    def expired(payload: Payload) -> None:
        payload["issued"], payload["expires"] = START_MS - 9 * DAY_MS, START_MS - 2 * DAY_MS

    await assert_refused_and_kept(arena, arena.realm.change(expired))


def twice(payload: Payload) -> None:
    payload["services"]["billing"]["sign"] *= 2


def in_two_services(payload: Payload) -> None:
    payload["services"]["billing"]["sign"] += payload["services"]["users"]["sign"]


def in_two_roles(payload: Payload) -> None:
    (entry,) = payload["services"]["users"]["sign"]
    raw = bytes.fromhex(entry["pub"])
    payload["services"]["users"]["enc"].append(key_entry(key_id(X25519, "test", raw), X25519, raw))


def another_id(payload: Payload) -> None:
    payload["services"]["users"]["sign"][0]["kid"] = "00" * 8


def compromised_state(payload: Payload) -> None:
    payload["services"]["users"]["sign"][0]["state"] = "compromised"


def unknown_field(payload: Payload) -> None:
    payload["services"]["users"]["admin"] = True


def number_as_text(payload: Payload) -> None:
    payload["max_lifetime_s"] = "604800"


def boolean_as_number(payload: Payload) -> None:
    payload["policy"]["escrow"]["command"] = 1


def another_realm(payload: Payload) -> None:
    payload["realm"] = "production"


def development(payload: Payload) -> None:
    payload["dev"] = True


def wide_rule(payload: Payload) -> None:
    payload["policy"]["send"].append({"from": "users", "kind": "command", "name": "*", "to": "orders"})


def wide_prefix(payload: Payload) -> None:
    payload["policy"]["send"].append({"from": "users", "kind": "command", "name": "ord*", "to": "orders"})


def rule_for_replays(payload: Payload) -> None:
    payload["policy"]["send"].append({"from": "users", "kind": "replay", "name": "orders.*", "to": "orders"})


def grant_for_a_service(payload: Payload) -> None:
    payload["policy"]["replay"].append({"operator": "users", "name": "orders.*", "to": "orders", "force": True})


def endless_life(payload: Payload) -> None:
    payload["max_lifetime_s"] = 31 * 24 * 3600


def reserved_service(payload: Payload) -> None:
    payload["services"]["event"] = {"sign": [], "enc": []}


def group_of_strangers(payload: Payload) -> None:
    payload["groups"]["group:ops"]["members"].append("ops:mallory")


AMBIGUOUS: Final[tuple[Edit, ...]] = (
    twice, in_two_services, in_two_roles, another_id, compromised_state, unknown_field, number_as_text,
    boolean_as_number, another_realm, development, wide_rule, wide_prefix, rule_for_replays, grant_for_a_service,
    endless_life, reserved_service, group_of_strangers,
)  # fmt: skip


@pytest.mark.attack(63)
@pytest.mark.parametrize("edit", AMBIGUOUS, ids=lambda edit: edit.__name__)
async def test_a_bundle_that_could_be_read_two_ways_is_refused_although_signed(arena: Arena, edit: Edit) -> None:
    await assert_refused_and_kept(arena, arena.realm.change(edit))


@pytest.mark.attack(63)
@pytest.mark.parametrize(
    "content",
    [
        lambda good: good[:-1] + b',"version":99}',
        lambda good: good.replace(b'"version":', b'"version":1e0,"version":', 1),
        lambda good: good.replace(b'"issued":1800000000000', b'"issued":1800000000000.0'),
        lambda good: good.replace(b'"issued":1800000000000', b'"issued":NaN'),
        lambda good: good.replace(b'"issued":1800000000000', b'"issued":99999999999999999999'),
        lambda good: b"[" * 5_000 + good,
        lambda good: b"\xef\xbb\xbf" + good,
        lambda good: good.decode().encode("utf-16"),
        lambda _: b"[]",
        lambda _: b"",
    ],
)
async def test_json_that_parsers_read_differently_is_refused_although_signed(
    arena: Arena, content: Callable[[bytes], bytes]
) -> None:
    realm = arena.realm
    realm.payload |= {"version": realm.payload["version"] + 1, "issued": START_MS}
    good = dump_json(realm.payload)
    altered = content(good)
    signature = [realm.root.kid, realm.root.sign(suite.LABEL + b"bundle\0" + altered)]

    assert altered != good
    await assert_refused_and_kept(arena, bytes(msgpack.packb([altered, [signature]])))


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    """A folder of keys and a bundle, as an installation has it."""
    folder = tmp_path / "keys"
    contract = Contract(handles=Subscriptions(commands=frozenset({("orders.place_order", 1)})))
    init_development(folder, {"orders": contract, "users": contract}, ambient=real_ambient())
    return folder


def orders_on(keys: Path, **settings: Any) -> Service:
    """Return the service, not started, with keys from a folder."""
    orders = Service("orders", Settings(broker_url="memory://", keys=keys, **settings))

    @orders.on_command(PlaceOrder)
    async def place(command: PlaceOrder, context: Context) -> None:
        """Do nothing."""

    return orders


def own_file(keys: Path) -> Path:
    return keys / keyring_file("orders")


def readable_by_others(keys: Path) -> None:
    own_file(keys).chmod(0o644)


def writable_by_the_group(keys: Path) -> None:
    own_file(keys).chmod(0o620)


def a_link(keys: Path) -> None:
    moved = keys / "elsewhere"
    own_file(keys).rename(moved)
    own_file(keys).symlink_to(moved)


def a_folder(keys: Path) -> None:
    own_file(keys).unlink()
    own_file(keys).mkdir(mode=0o600)


def a_pipe(keys: Path) -> None:
    own_file(keys).unlink()
    os.mkfifo(own_file(keys), 0o600)


def missing(keys: Path) -> None:
    own_file(keys).unlink()


def truncated(keys: Path) -> None:
    os.truncate(own_file(keys), own_file(keys).stat().st_size // 2)


def empty(keys: Path) -> None:
    os.truncate(own_file(keys), 0)


def of_another_service(keys: Path) -> None:
    own_file(keys).unlink()
    shutil.copy2(keys / keyring_file("users"), own_file(keys))


def without_a_bundle(keys: Path) -> None:
    (keys / "trust.bundle").unlink()


def with_a_forged_bundle(keys: Path) -> None:
    raw = (keys / "trust.bundle").read_bytes()
    (keys / "trust.bundle").write_bytes(raw[:-1] + bytes((raw[-1] ^ 1,)))


def of_another_realm(keys: Path) -> None:
    own_file(keys).unlink()
    write_keyring(Keyring.generate("orders", realm="dev-other", roots=(Realm().root.public,)), own_file(keys))


def with_other_keys(keys: Path) -> None:
    known = load_keyring(own_file(keys))
    own_file(keys).unlink()
    write_keyring(Keyring.generate("orders", realm=known.realm, roots=known.roots), own_file(keys))


SPOILED: Final[dict[Callable[[Path], None], str]] = {
    readable_by_others: "chmod 600",
    writable_by_the_group: "chmod 600",
    a_link: "symbolic link",
    a_folder: "no plain file",
    a_pipe: "no plain file",
    missing: "messaging trust init",
    truncated: "not valid JSON",
    empty: "not valid JSON",
    of_another_service: "holds the keys of 'users'",
    without_a_bundle: "no trust bundle",
    with_a_forged_bundle: "does not hold",
    of_another_realm: "signed by 0 of the root keys",
    with_other_keys: "lacks key",
}


@pytest.mark.attack(64)
@pytest.mark.parametrize("spoil", SPOILED, ids=lambda spoil: spoil.__name__)
async def test_a_spoiled_key_folder_stops_the_start(
    keys: Path, exhibits: Exhibits, spoil: Callable[[Path], None]
) -> None:
    orders = orders_on(keys)
    spoil(keys)

    with pytest.raises(ConfigurationError, match=SPOILED[spoil]) as refused:
        await orders.start()

    exhibits.show(refused.value)
    assert not orders.health.is_ready


@pytest.mark.attack(64)
async def test_a_foreign_owner_stops_the_start(keys: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    owner = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)

    with pytest.raises(ConfigurationError, match="chown"):
        await orders_on(keys).start()


@pytest.mark.attack(64)
@pytest.mark.parametrize("given", [None, b"", b"wrong", b"right "])
async def test_a_wrong_passphrase_stops_the_start(
    keys: Path, tmp_path: Path, exhibits: Exhibits, given: bytes | None
) -> None:
    write_keyring(load_keyring(own_file(keys)), own_file(keys), passphrase=b"right", replace=True, cost=CHEAP)
    secret = tmp_path / "passphrase"
    secret.write_bytes(given or b"")
    options = {} if given is None else {"passphrase_file": secret}

    with pytest.raises(ConfigurationError, match="passphrase") as refused:
        await orders_on(keys, **options).start()

    exhibits.show(refused.value)
    assert "right" not in str(refused.value).replace("right?", "")


@pytest.mark.attack(64)
async def test_the_right_passphrase_starts(keys: Path, tmp_path: Path) -> None:
    write_keyring(load_keyring(own_file(keys)), own_file(keys), passphrase=b"right", replace=True, cost=CHEAP)
    secret = tmp_path / "passphrase"
    secret.write_bytes(b"right\n")

    async with orders_on(keys, passphrase_file=secret) as orders:
        assert orders.health.is_ready


@pytest.mark.attack(63)
async def test_a_bad_bundle_on_disk_leaves_the_last_good_one_in_force(keys: Path, logs: Logs) -> None:
    bundle = keys / "trust.bundle"
    good = bundle.read_bytes()
    contract = Contract(handles=Subscriptions(commands=frozenset({("orders.place_order", 1)})))
    async with orders_on(keys, trust_poll_s=0.01) as orders:
        bundle.write_bytes(good[:-1] + bytes((good[-1] ^ 1,)))
        await eventually(lambda: bool(logs.of("trust.rejected")), what="the bad bundle was seen")
        assert orders.health.is_live
        await orders.send(PlaceOrder(note="still under the last good bundle"))
        await orders.settled()
        init_development(keys.parent / "more", {"orders": contract}, ambient=real_ambient())
        bundle.write_bytes((keys.parent / "more" / "trust.bundle").read_bytes())
        rejected = len(logs.of("trust.rejected"))
        await eventually(lambda: len(logs.of("trust.rejected")) > rejected, what="another realm's bundle was seen")
        bundle.write_bytes(good)
        init_development(keys, {"orders": contract}, ambient=real_ambient())
        await eventually(lambda: bool(logs.of("trust.reloaded")), what="a newer good one was taken")

        assert len(logs.of("delivery.handled")) == 1


@pytest.mark.attack(65)
async def test_a_fork_shares_no_data_key_and_repeats_no_salt(arena: Arena) -> None:
    sealer = arena.realm.sealer("users")
    parent = [sealer.seal(arena.envelope(PlaceOrder()), routing_key=PLACE_ORDER) for _ in range(3)]

    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            sealed = [sealer.seal(arena.envelope(PlaceOrder()), routing_key=PLACE_ORDER) for _ in range(3)]
            os.write(writing, msgpack.packb(sealed))
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        children: list[bytes] = msgpack.unpackb(pipe.read())
    await asyncio.to_thread(os.waitpid, child, 0)
    parent += [sealer.seal(arena.envelope(PlaceOrder()), routing_key=PLACE_ORDER) for _ in range(3)]

    outcome = await arena.struck(*parent, *children)

    outcome.assert_ran(times=9)
    assert {dek_of(body) for body in parent}.isdisjoint(dek_of(body) for body in children)
    assert len({dek_of(body) for body in parent}) == 1
    salts = [msgpack.unpackb(split_parts(body).header)[14] for body in (*parent, *children)]
    assert len(set(salts)) == 9


def dek_of(body: bytes) -> bytes:
    """Return the id of the data key that a message was sealed under."""
    return parse_block(split_parts(body).block).dek_id


async def sent_by_orders(arena: Arena) -> bytes:
    """Let users send through the public way, and return the bytes that orders got."""
    before = len(arena.ran)
    await arena.services["users"].send(PlaceOrder())
    await arena.settled()
    assert len(arena.ran) == before + 1
    return arena.ran[-1].context.envelope.id.bytes


@pytest.mark.attack(66)
@pytest.mark.parametrize("limit", ["age", "messages", "bytes", "bundle", "clock set back", "clock set ahead"])
async def test_a_data_key_is_renewed_at_each_of_its_limits(arena: Arena, limit: str) -> None:
    sealer = arena.realm.sealer("users")

    def sealed() -> bytes:
        return sealer.seal(arena.envelope(PlaceOrder()), routing_key=PLACE_ORDER)

    first, second = sealed(), sealed()
    (known,) = sealer._data_keys._keys.values()
    if limit == "age":
        arena.clock.advance(datakeys.AGE_MAX_S)
    elif limit == "messages":
        for _ in range(datakeys.MESSAGES_MAX - known.messages):
            sealer.prepare(arena.envelope(PlaceOrder()), routing_key=PLACE_ORDER)
    elif limit == "bytes":
        known.volume = datakeys.VOLUME_MAX - 10
    elif limit == "bundle":
        arena.realm.publish()
    else:
        arena.clock.now_ms += -40_000 if limit == "clock set back" else 400_000
    third = sealed()

    assert dek_of(first) == dek_of(second) != dek_of(third)
    assert known.messages <= datakeys.MESSAGES_MAX
    (await arena.struck(first, second, third)).assert_ran(times=3)


@pytest.mark.attack(66)
async def test_each_set_of_recipients_has_a_data_key_of_its_own(arena: Arena) -> None:
    await sent_by_orders(arena)
    users = arena.realm.sealer("users")
    command = users.seal(arena.envelope(PlaceOrder()), routing_key=PLACE_ORDER)

    def no_escrow(payload: Payload) -> None:
        payload["policy"]["escrow"]["command"] = False

    arena.realm.publish(no_escrow)
    without = users.seal(arena.envelope(PlaceOrder()), routing_key=PLACE_ORDER)

    assert dek_of(command) != dek_of(without)
    assert [row.rid for row in parse_block(split_parts(without).block).rows] == ["orders"]
    (await arena.struck(command, without)).assert_ran(times=2)
