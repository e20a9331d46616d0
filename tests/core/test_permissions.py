"""Rights at the broker, as regular expressions: what they let pass, and what they keep out."""

import base64
import hashlib
import re

import pytest

from messaging.core.delays import DELAY_MAX_S, delay_key, delay_topology
from messaging.core.permissions import (
    Account,
    Sends,
    account_name,
    ctl_commands,
    definitions,
    operator_account,
    password_hash,
    service_account,
    topology_account,
)
from messaging.core.topology import Declares, Names, Subscriptions

NAMES = Names("ns")
EVERYTHING = Subscriptions(
    commands=frozenset({("orders.place", 1)}),
    requests=frozenset({("orders.get", 1)}),
    events=frozenset({("users.registered", 1)}),
    faults=True,
    rungs_ms=(1_000,),
)
OWN_QUEUES = {f"ns.orders.{part}" for part in ("commands", "requests", "events", "faults", "dead", "refused")}
OWN_EXCHANGES = {"ns.orders.retry.1000", "ns.orders.return", "ns.orders.undeliverable"}
SHARED = {"ns.commands", "ns.requests", "ns.events", "ns.replies", "ns.dead"}
REPLIES = "ns.orders.replies.0123456789abcdef"
FOREIGN = {
    "amq.default",
    "amq.topic",
    "other.commands",
    "nsXcommands",
    "ns.commands.more",
    "ns.users.commands",
    "ns.users.return",
    "ns.users.retry.1000",
    "ns.users.undeliverable",
    "ns.users.replies.0123456789abcdef",
    "ns.orders.replies.0123",
    "ns.orders2.return",
    "",
}
DEFAULT = service_account(NAMES, "orders", EVERYTHING)
OWNER = service_account(NAMES, "orders", EVERYTHING, declares=Declares.OWN)


def passing(pattern: str, names: set[str]) -> set[str]:
    """Return the names that the broker would let pass: it searches, so patterns must hold the whole name."""
    return {name for name in names if re.search(pattern, name)}


def topic(account: Account, exchange: str) -> tuple[str, str]:
    """Return the patterns of one exchange: what may be published, and what may be bound."""
    return next((found.write, found.read) for found in account.topics if found.exchange == exchange)


@pytest.mark.parametrize("account", [DEFAULT, OWNER])
def test_nothing_of_anybody_else_passes(account: Account) -> None:
    for pattern in (account.configure, account.write, account.read):
        assert passing(pattern, FOREIGN) == set()


def test_a_service_that_declares_nothing_makes_its_reply_queues_alone() -> None:
    assert passing(DEFAULT.configure, OWN_QUEUES | OWN_EXCHANGES | SHARED | {REPLIES}) == {REPLIES}
    assert passing(DEFAULT.write, OWN_QUEUES | {REPLIES}) == {REPLIES}


def test_a_service_publishes_to_the_shared_exchanges_and_to_its_own() -> None:
    assert passing(DEFAULT.write, SHARED | OWN_EXCHANGES) == SHARED | OWN_EXCHANGES


def test_a_service_reads_what_it_consumes_but_not_its_dead_letters() -> None:
    consumed = {f"ns.orders.{part}" for part in ("commands", "requests", "events", "faults")}

    assert passing(DEFAULT.read, OWN_QUEUES | SHARED | {REPLIES}) == consumed | {REPLIES, "ns.replies"}
    assert passing(OWNER.read, {"ns.orders.dead", "ns.orders.refused"}) == set()


def test_a_service_that_declares_its_own_cannot_make_or_delete_what_all_share() -> None:
    assert passing(OWNER.configure, OWN_QUEUES | OWN_EXCHANGES | SHARED) == OWN_QUEUES | OWN_EXCHANGES
    assert passing(OWNER.write, OWN_QUEUES) == OWN_QUEUES
    assert passing(OWNER.read, SHARED) == SHARED


def test_only_own_events_may_be_published() -> None:
    write, read = topic(DEFAULT, "ns.events")

    assert passing(write, {"orders.placed.v1", "orders.a.b.v2", "users.registered.v1", "orders2.placed.v1"}) == {
        "orders.placed.v1",
        "orders.a.b.v2",
    }
    assert read == "^$"


def test_only_subscribed_keys_may_be_bound() -> None:
    assert topic(OWNER, "ns.events")[1] == r"^users\.registered\.v1$"
    assert passing(topic(OWNER, "ns.commands")[1], {"orders.place.v1", "users.rename.v1", "#", "*.*.*"}) == {
        "orders.place.v1"
    }
    assert passing(topic(OWNER, "ns.dead")[1], {"dead.orders.#", "dead.*.orders", "dead.users.#", "#"}) == {
        "dead.orders.#",
        "dead.*.orders",
    }
    assert passing(topic(OWNER, "ns.replies")[1], {REPLIES, "ns.users.replies.0123456789abcdef", "#"}) == {REPLIES}


def test_a_service_that_answers_may_answer_everybody_and_nothing_else() -> None:
    keys = {REPLIES, "ns.users.replies.0123456789abcdef", "ns.ops:alice.replies.0123456789abcdef"}

    assert passing(topic(DEFAULT, "ns.replies")[0], keys | {"ns.users.commands", "other.users.replies.x"}) == keys


def test_a_service_buries_under_its_own_name() -> None:
    keys = {"dead.orders", "dead.orders.users", "dead.users", "dead.users.orders", "dead.orders.a.b"}

    assert passing(topic(DEFAULT, "ns.dead")[0], keys) == {"dead.orders", "dead.orders.users"}


def test_without_a_policy_every_command_and_request_may_be_sent() -> None:
    for exchange in ("ns.commands", "ns.requests"):
        assert passing(topic(DEFAULT, exchange)[0], {"users.rename.v1", "#", "", "users"}) == {"users.rename.v1"}


def test_a_policy_narrows_what_may_be_sent() -> None:
    sends = Sends(commands=frozenset({"users.rename", "mail.*"}))
    account = service_account(NAMES, "orders", Subscriptions(), sends=sends)

    keys = {"users.rename.v1", "users.rename.v12", "users.rename.more.v1", "mail.send.v1", "mail2.send.v1"}
    assert passing(topic(account, "ns.commands")[0], keys) == {"users.rename.v1", "users.rename.v12", "mail.send.v1"}
    assert passing(account.write, SHARED | {REPLIES}) == {"ns.commands", "ns.events"}
    assert (account.configure, account.read) == ("^$", "^$")


LEVELS = {f"ns.orders.delay.{level:02}" for level in range(20)}
WAYS = {delay_key(0), delay_key(5), delay_key(DELAY_MAX_S)}
ASTRAY = {"#", "commands", delay_key(5) + ".more", delay_key(5).replace("commands", "dead"), "orders.place.v1"}


def test_whoever_may_send_to_a_service_may_enter_its_delay_levels_and_nothing_behind_the_entry() -> None:
    sends = Sends(commands=frozenset({"orders.place"}), requests=frozenset({"users.get"}))
    account = service_account(NAMES, "billing", Subscriptions(), sends=sends, delays=["orders", "users"])

    entries = {"ns.orders.delay", "ns.users.delay"}
    assert passing(account.write, entries | LEVELS) == {"ns.orders.delay"}
    assert passing(account.configure, entries | LEVELS) == set()
    assert passing(account.read, entries | LEVELS) == set()
    write, read = topic(account, "ns.orders.delay")
    assert passing(write, WAYS | ASTRAY) == WAYS
    assert read == "^$"


def test_without_a_policy_everybody_may_enter_every_services_levels() -> None:
    orders = service_account(NAMES, "orders", EVERYTHING, delays=["orders", "users"])
    operator = operator_account(NAMES, "ops:alice", ["orders"], delays=["orders"])

    assert passing(orders.write, {"ns.orders.delay", "ns.users.delay"}) == {"ns.orders.delay", "ns.users.delay"}
    assert passing(operator.write, {"ns.orders.delay", "ns.users.delay"}) == {"ns.orders.delay"}
    assert passing(orders.configure, LEVELS | {"ns.orders.delay"}) == set()


def test_who_sends_no_commands_enters_no_levels() -> None:
    sends = Sends(requests=frozenset({"orders.get"}))

    for account in (
        service_account(NAMES, "billing", Subscriptions(), sends=sends, delays=["orders"]),
        operator_account(NAMES, "ops:alice", [], sends=sends, delays=["orders"]),
        service_account(NAMES, "billing", Subscriptions()),
    ):
        assert passing(account.write, {"ns.orders.delay"}) == set()


def test_the_topology_account_makes_and_binds_the_levels_and_sends_nothing_through_them() -> None:
    total = NAMES.of_service("orders", EVERYTHING) + delay_topology(NAMES, "orders")
    account = topology_account(NAMES, total, "topology")

    everything = LEVELS | {"ns.orders.delay"}
    assert passing(account.configure, everything) == everything
    assert passing(account.read, everything) == everything
    for exchange in everything:
        write, read = topic(account, exchange)
        assert write == "^$"
        assert all(re.search(read, binding.routing_key) for binding in total.bindings if binding.exchange == exchange)


def test_a_client_answers_and_buries_nothing() -> None:
    client = service_account(NAMES, "shop", Subscriptions())

    assert passing(client.write, SHARED) == {"ns.commands", "ns.requests", "ns.events"}
    assert passing(client.read, SHARED) == {"ns.replies"}


def test_every_topic_exchange_in_use_is_narrowed() -> None:
    for account in (DEFAULT, OWNER):
        used = passing(account.write, SHARED) | passing(account.read, SHARED)
        assert {found.exchange for found in account.topics} == used


def test_an_operator_locks_reads_and_replays_what_it_is_given() -> None:
    account = operator_account(NAMES, "ops:alice", ["orders"])

    assert account.user == "ops.alice"
    assert passing(account.configure, {"ns.orders.dead.lock", "ns.users.dead.lock", "ns.orders.dead"}) == {
        "ns.orders.dead.lock"
    }
    assert passing(account.read, OWN_QUEUES) == {"ns.orders.dead"}
    assert passing(account.write, OWN_EXCHANGES | SHARED | {"ns.users.return"}) == {
        "ns.orders.return",
        "ns.commands",
        "ns.requests",
        "ns.events",
    }
    assert passing(account.configure, {"ns.ops:alice.replies.0123456789abcdef"})
    assert passing(topic(account, "ns.events")[0], {"users.registered.v1", "x"}) == {"users.registered.v1"}


def test_an_operator_is_narrowed_by_policy_too() -> None:
    account = operator_account(NAMES, "ops:bob", [], sends=Sends(events=frozenset({"users.registered"})), prefix="t-")

    assert account.user == "t-ops.bob"
    assert passing(account.write, SHARED) == {"ns.events"}
    assert topic(account, "ns.events")[0] == r"^users\.registered\.v[0-9]+$"
    assert (account.configure, account.read) == ("^$", "^$")
    assert operator_account(NAMES, "ops:bob", [], sends=Sends()).write == "^$"


def test_the_account_of_the_topology_makes_everything_and_sends_nothing_first() -> None:
    account = topology_account(NAMES, NAMES.of_service("orders", EVERYTHING), "topology")

    assert passing(account.configure, OWN_QUEUES | OWN_EXCHANGES | SHARED) == OWN_QUEUES | OWN_EXCHANGES | SHARED
    assert passing(account.write, SHARED | {"ns.orders.retry.1000"}) == {"ns.orders.retry.1000"}
    assert passing(account.read, {"ns.orders.dead", "ns.users.commands"}) == set()
    assert {found.write for found in account.topics} == {"^$"}


@pytest.mark.parametrize(
    ("identity", "prefix", "user"), [("orders", "", "orders"), ("ops:alice", "", "ops.alice"), ("a", "prod-", "prod-a")]
)
def test_the_user_of_an_identity(identity: str, prefix: str, user: str) -> None:
    assert account_name(identity, prefix=prefix) == user


def test_names_with_a_hyphen_mean_themselves() -> None:
    account = service_account(Names("my-shop"), "back-office", Subscriptions(), declares=Declares.OWN)

    assert passing(account.configure, {"my-shop.back-office.replies.0123456789abcdef"})
    assert "\\-" not in account.configure


def test_a_password_is_hashed_as_the_broker_does() -> None:
    hashed = base64.b64decode(password_hash("s3cret", salt=b"salt"))

    assert hashed == b"salt" + hashlib.sha256(b"salts3cret").digest()


def test_definitions_hold_users_and_both_kinds_of_permission() -> None:
    found = definitions([DEFAULT], vhost="prod", hashes={"orders": "hash"})

    assert found["vhosts"] == [{"name": "prod"}]
    assert found["users"] == [
        {
            "name": "orders",
            "password_hash": "hash",
            "hashing_algorithm": "rabbit_password_hashing_sha256",
            "tags": [],
        }
    ]
    assert found["permissions"] == [
        {
            "user": "orders",
            "vhost": "prod",
            "configure": DEFAULT.configure,
            "write": DEFAULT.write,
            "read": DEFAULT.read,
        }
    ]
    topics = found["topic_permissions"]
    assert isinstance(topics, list)
    assert [row["exchange"] for row in topics] == sorted(SHARED)
    assert {row["vhost"] for row in topics} == {"prod"}


def test_a_user_without_a_hash_cannot_log_in_by_password() -> None:
    users = definitions([DEFAULT], vhost="/", hashes={})["users"]

    assert isinstance(users, list)
    assert users[0]["password_hash"] == ""


def test_commands_of_rabbitmqctl_say_the_same() -> None:
    add, grant, *topics = ctl_commands([DEFAULT], vhost="/")

    assert add == ("add_user", "orders")
    assert grant == ("set_permissions", "-p", "/", "orders", DEFAULT.configure, DEFAULT.write, DEFAULT.read)
    assert topics == [
        ("set_topic_permissions", "-p", "/", "orders", found.exchange, found.write, found.read)
        for found in DEFAULT.topics
    ]


def test_partitions_are_the_service_s_own_to_read_and_every_slot_may_be_sent_to() -> None:
    keyed = Subscriptions(
        commands=frozenset({("orders.book", 1)}), keyed=frozenset({("orders.book", 1)}), partitions=2, rungs_ms=(1_000,)
    )
    names = Names("t")
    sends = Sends(commands=frozenset({"orders.book"}), requests=frozenset({"orders.book"}))
    slot = ".0.1.1.0.0.1.0.1.1.1.0.1"
    keys = {f"orders.book.v1{slot}", f"orders.book.v1{slot}.1", "orders.book.v1", "orders.book.v1.0", "orders.other.v1"}

    for declares in Declares:
        account = service_account(names, "orders", keyed, declares=declares, sends=sends)

        parts = {"t.orders.commands.p0", "t.orders.commands.p1", "t.orders.commands.p2"}
        assert passing(account.read, parts) == {"t.orders.commands.p0", "t.orders.commands.p1"}
        assert passing(topic(account, "t.commands")[0], keys) == {f"orders.book.v1{slot}", "orders.book.v1"}
        assert passing(topic(account, "t.requests")[0], keys) == {"orders.book.v1"}


def test_without_a_policy_every_slot_may_be_sent_to() -> None:
    account = service_account(Names("t"), "users", Subscriptions())

    slot = ".0.1.1.0.0.1.0.1.1.1.0.1"
    assert passing(topic(account, "t.commands")[0], {f"orders.book.v1{slot}"})
    assert not passing(topic(account, "t.requests")[0], {f"orders.book.v1{slot}"})


def test_slots_of_own_commands_may_be_bound_for_any_number_of_partitions() -> None:
    keyed = Subscriptions(
        commands=frozenset({("orders.book", 1)}), keyed=frozenset({("orders.book", 1)}), partitions=4, rungs_ms=(1_000,)
    )

    account = service_account(Names("t"), "orders", keyed, declares=Declares.OWN)

    stars = ".*" * 11
    keys = {f"orders.book.v1.0{stars}", f"orders.book.v1.1{stars}", f"orders.other.v1.1{stars}", "orders.book.v1.#"}
    assert passing(topic(account, "t.commands")[1], keys) == {f"orders.book.v1.0{stars}", f"orders.book.v1.1{stars}"}
