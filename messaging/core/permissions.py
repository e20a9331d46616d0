"""Which rights at the broker each service and operator needs, and no more: users, permissions, topic permissions.

Computed from the topology alone. What RabbitMQ asks for (docs/topology.md, "Permissions"):

- `configure` to make or delete a thing; `write` on an exchange to publish to it, `read` on a queue to consume from it;
- to bind, `write` on the queue and `read` on the exchange; of a topic exchange the routing key must be readable too;
- to make a queue with a dead-letter exchange, or an exchange with an alternate one, `read` on it and `write` on that;
- nothing at all to ask whether a thing exists.

A topic exchange without a topic permission lets every routing key pass, so each account has one for each it may use.
"""

import base64
import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from messaging.core.delays import ANY_DELAY_KEY
from messaging.core.names import owner_of
from messaging.core.partition import SLOT_BITS
from messaging.core.topology import Binding, Declares, Exchange, Names, Subscriptions, Topology, dead_routing_key

__all__ = [
    "Account",
    "Sends",
    "TopicPermission",
    "account_name",
    "ctl_commands",
    "definitions",
    "operator_account",
    "password_hash",
    "service_account",
    "topology_account",
]

NOTHING: Final = "^$"
HASHING: Final = "rabbit_password_hashing_sha256"
SALT_BYTES: Final = 4

_VERSION: Final = r"\.v[0-9]+"
_ANY_MESSAGE: Final = rf"[a-z].*{_VERSION}"
# Commands with a key carry the bits of their slot. Whoever may send a command may send it into each.
_ANY_SLOT: Final = rf"(?:(?:\.[01]){{{SLOT_BITS}}})?"
_ANY_SERVICE: Final = "[a-z][a-z0-9_-]*"
_ANY_REQUESTER: Final = rf"(?:ops:)?{_ANY_SERVICE}"
_INSTANCE: Final = "[0-9a-f]{16}"
_SLOT_PATTERN: Final = re.compile(rf"(.+?)(?:\.[01*]){{{SLOT_BITS}}}")
_WORK: Final = ("commands", "events", "requests", "faults")
_DEAD_LETTER_EXCHANGE: Final = "x-dead-letter-exchange"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sends:
    """What an account may publish first, as message names or `prefix.*`; a service's own events need no mention."""

    commands: frozenset[str] = frozenset()
    requests: frozenset[str] = frozenset()
    events: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class TopicPermission:
    """Which routing keys of one topic exchange an account may publish with, and bind; regular expressions."""

    exchange: str
    write: str
    read: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """One user of the broker and its rights in one virtual host; regular expressions that match whole names.

    Attributes:
        user: Its name; also the common name of its client certificate.
        configure, write, read: Names of exchanges and queues.
        topics: What narrows topic exchanges.
    """

    user: str
    configure: str
    write: str
    read: str
    topics: tuple[TopicPermission, ...] = ()


class _Rights:
    """Collects the rights of one account; an empty one has none."""

    def __init__(self, names: Names) -> None:
        self._names = names
        self.configure: set[str] = set()
        self.write: set[str] = set()
        self.read: set[str] = set()
        self.topics: dict[str, tuple[set[str], set[str]]] = {}

    def publish(self, exchange: str, keys: Iterable[str]) -> None:
        """Let it publish to a topic exchange with routing keys that match one of the patterns."""
        self.write.add(_literal(exchange))
        self._topic(exchange)[0].update(keys)

    def bind(self, binding: Binding) -> None:
        """Let it bind a queue of its own."""
        self.write.add(_literal(binding.queue))
        self.read.add(_literal(binding.exchange))
        if binding.exchange in {exchange.name for exchange in self._names.shared().exchanges}:
            self._topic(binding.exchange)[1].add(_bound_key(binding.routing_key))

    def make(self, topology: Topology, declares: Declares) -> None:
        """Let it make what it declares."""
        for exchange in topology.exchanges:
            if declares.makes(exchange):
                self._make_exchange(exchange)
        made = [queue for queue in topology.queues if declares.makes(queue)]
        for queue in made:
            self.configure.add(_literal(queue.name))
            if _DEAD_LETTER_EXCHANGE in queue.arguments:
                self.read.add(_literal(queue.name))
                self.write.add(_literal(str(queue.arguments[_DEAD_LETTER_EXCHANGE])))
        names = {queue.name for queue in made}
        for binding in topology.bindings:
            if binding.queue in names:
                self.bind(binding)

    def _make_exchange(self, exchange: Exchange) -> None:
        self.configure.add(_literal(exchange.name))
        if exchange.type == "topic" and not exchange.is_shared:
            # Its own to bind as it needs; nothing to publish to.
            self._topic(exchange.name)[1].add(".*")
        if exchange.alternate is not None:
            self.read.add(_literal(exchange.name))
            self.write.add(_literal(exchange.alternate))

    def receive_replies(self, identity: str) -> None:
        """Let it have reply queues: each instance makes and binds its own, whoever declares the rest."""
        queues = _literal(self._names.reply_queue(identity, "")) + _INSTANCE
        for right in (self.configure, self.write, self.read):
            right.add(queues)
        self.read.add(_literal(self._names.replies))
        self._topic(self._names.replies)[1].add(queues)

    def account(self, user: str) -> Account:
        """Return what was collected, in an order that does not change from run to run."""
        return Account(
            user=user,
            configure=self._pattern(self.configure),
            write=self._pattern(self.write),
            read=self._pattern(self.read),
            topics=tuple(
                TopicPermission(exchange=exchange, write=_one_of(write), read=_one_of(read))
                for exchange, (write, read) in sorted(self.topics.items())
            ),
        )

    def _topic(self, exchange: str) -> tuple[set[str], set[str]]:
        return self.topics.setdefault(exchange, (set(), set()))

    def _pattern(self, names: set[str]) -> str:
        # Every name begins with the namespace: written once, the rest can be read.
        prefix = _literal(f"{self._names.namespace}.")
        return _one_of((name.removeprefix(prefix) for name in names), prefix=prefix)


def account_name(identity: str, *, prefix: str = "") -> str:
    """Return the broker's user of a service or operator: `orders`, `ops.alice`.

    A colon would not survive HTTP's basic authentication, and no service has a dot in its name.
    """
    return prefix + identity.replace(":", ".")


def service_account(
    names: Names,
    service: str,
    subscriptions: Subscriptions,
    *,
    declares: Declares = Declares.REPLIES,
    sends: Sends | None = None,
    delays: Iterable[str] = (),
    prefix: str = "",
) -> Account:
    """Return the account of a service.

    Args:
        names: The namespace.
        service: Its name.
        subscriptions: What it handles.
        declares: What it makes itself.
        sends: What it may send; None: every command and request.
        delays: Services that have delay levels; it may use those of services that it may send commands to.
        prefix: Stands before the user's name.
    """
    rights = _Rights(names)
    topology = names.of_service(service, subscriptions)
    rights.make(topology, declares)
    _let_send(rights, names, sends)
    _let_delay(rights, names, sends, delays)
    rights.publish(names.events, [_literal(f"{service}.") + ".+"])
    if sends is None or sends.requests:
        rights.receive_replies(service)
    if subscriptions.requests:
        rights.publish(names.replies, [_any_reply_queue(names)])
    if not subscriptions.is_empty:
        buried = _literal(dead_routing_key(service, None))
        rights.publish(names.dead, [buried, rf"{buried}\.{_ANY_SERVICE}"])
    rights.write |= {_literal(exchange.name) for exchange in topology.exchanges if not exchange.is_shared}
    queues = {queue.name for queue in topology.queues}
    rights.read |= {_literal(queue) for part in _WORK if (queue := names.queue(service, part)) in queues}
    rights.read |= {_literal(queue) for queue in names.partitions(service, subscriptions)}
    return rights.account(account_name(service, prefix=prefix))


def operator_account(
    names: Names,
    operator: str,
    replays: Iterable[str],
    *,
    sends: Sends | None = None,
    delays: Iterable[str] = (),
    prefix: str = "",
) -> Account:
    """Return the account of an operator, who sends by hand and works on dead letters.

    Args:
        names: The namespace.
        operator: `ops:<name>`.
        replays: Services whose dead letters it may read, replay and discard.
        sends: What it may send; None: everything.
        delays: Services that have delay levels.
        prefix: Stands before the user's name.
    """
    rights = _Rights(names)
    _let_send(rights, names, sends)
    _let_delay(rights, names, sends, delays)
    if sends is None or sends.events:
        rights.publish(names.events, [_ANY_MESSAGE] if sends is None else map(_keys_of, sends.events))
    if sends is None or sends.requests:
        rights.receive_replies(operator)
    services = tuple(replays)
    if services:
        # What it does there is recorded, and it may read what others did.
        rights.write.add(_literal(names.audit))
        rights.read.add(_literal(names.audit))
    for service in services:
        dead = names.queue(service, "dead")
        rights.configure.add(_literal(names.lock(dead)))
        rights.read.add(_literal(dead))
        rights.write.add(_literal(names.return_exchange(service)))
    return rights.account(account_name(operator, prefix=prefix))


def topology_account(names: Names, topology: Topology, user: str) -> Account:
    """Return the account that makes the topology of all services, and neither consumes nor sends first.

    Args:
        names: The namespace.
        topology: Everything there is.
        user: Its name.
    """
    rights = _Rights(names)
    rights.make(topology, Declares.ALL)
    return rights.account(user)


def password_hash(password: str, *, salt: bytes) -> str:
    """Return a password as RabbitMQ keeps it: base64 of salt and SHA-256 of salt and password.

    Args:
        password: At best random and long: one round of a fast hash protects no word.
        salt: 4 random bytes.

    Source: RabbitMQ, "Passwords", computing a password hash.
    """
    return base64.b64encode(salt + hashlib.sha256(salt + password.encode()).digest()).decode()


def definitions(accounts: Iterable[Account], *, vhost: str, hashes: Mapping[str, str]) -> dict[str, object]:
    """Return the accounts as RabbitMQ's definitions, for `rabbitmqctl import_definitions` or `load_definitions`.

    Args:
        accounts: The accounts.
        vhost: The virtual host.
        hashes: Password hash by user; one without can log in with a client certificate alone.
    """
    accounts = list(accounts)
    return {
        "vhosts": [{"name": vhost}],
        "users": [_user(account.user, hashes.get(account.user, "")) for account in accounts],
        "permissions": [
            {
                "user": account.user,
                "vhost": vhost,
                "configure": account.configure,
                "write": account.write,
                "read": account.read,
            }
            for account in accounts
        ],
        "topic_permissions": [
            {
                "user": account.user,
                "vhost": vhost,
                "exchange": topic.exchange,
                "write": topic.write,
                "read": topic.read,
            }
            for account in accounts
            for topic in account.topics
        ],
    }


def ctl_commands(accounts: Iterable[Account], *, vhost: str) -> list[tuple[str, ...]]:
    """Return the accounts as arguments of `rabbitmqctl`. `add_user` reads the password from standard input.

    Args:
        accounts: The accounts.
        vhost: The virtual host, which exists.
    """
    commands: list[tuple[str, ...]] = []
    for account in accounts:
        commands.append(("add_user", account.user))
        rights = (account.configure, account.write, account.read)
        commands.append(("set_permissions", "-p", vhost, account.user, *rights))
        commands += [
            ("set_topic_permissions", "-p", vhost, account.user, topic.exchange, topic.write, topic.read)
            for topic in account.topics
        ]
    return commands


def _let_send(rights: _Rights, names: Names, sends: Sends | None) -> None:
    for exchange, patterns, ending in (
        (names.commands, None if sends is None else sends.commands, _ANY_SLOT),
        (names.requests, None if sends is None else sends.requests, ""),
    ):
        if patterns is None:
            rights.publish(exchange, [_ANY_MESSAGE + ending])
        elif patterns:
            rights.publish(exchange, [_keys_of(pattern) + ending for pattern in patterns])


def _let_delay(rights: _Rights, names: Names, sends: Sends | None, delays: Iterable[str]) -> None:
    """Let it enter the levels of those whom it may send commands: they end in the same queue, only later."""
    owners = None if sends is None else {owner_of(name) for name in sends.commands}
    for service in delays:
        if owners is None or service in owners:
            rights.publish(names.delay(service), [ANY_DELAY_KEY])


def _keys_of(pattern: str) -> str:
    """Return the routing keys of a message name or `prefix.*`."""
    if pattern.endswith(".*"):
        return _literal(pattern[:-1]) + f".+{_VERSION}"
    return _literal(pattern) + _VERSION


def _bound_key(routing_key: str) -> str:
    """Return the keys that may be bound. Of slots all at once: their bindings change with the number of partitions."""
    slots = _SLOT_PATTERN.fullmatch(routing_key)
    return _literal(routing_key) if slots is None else _literal(slots[1]) + rf"(?:\.[01*]){{{SLOT_BITS}}}"


def _any_reply_queue(names: Names) -> str:
    # The reply queue of a requester whose name is one character that no name has, and then any name in its place.
    return _literal(names.reply_queue("/", "")).replace("/", _ANY_REQUESTER) + _INSTANCE


def _user(name: str, hashed: str) -> dict[str, object]:
    return {"name": name, "password_hash": hashed, "hashing_algorithm": HASHING, "tags": []}


def _literal(text: str) -> str:
    # A hyphen means itself outside of brackets; escaped it only hurts the eye.
    return re.escape(text).replace(r"\-", "-")


def _one_of(patterns: Iterable[str], *, prefix: str = "") -> str:
    found = sorted(set(patterns))
    if not found:
        return NOTHING
    return f"^{prefix}{found[0]}$" if len(found) == 1 else f"^{prefix}(?:{'|'.join(found)})$"
