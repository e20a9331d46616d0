"""Services confined to the rights that `topology export --permissions` computes, on a real broker and over TLS.

Each logs in by its certificate. First everything must work; then a program with one service's certificate, which knows
nothing of this library, tries what that service may not do.
"""

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

import aiormq
import pytest
from aiormq.exceptions import ChannelAccessRefused

from messaging import Command, Context, Reject, RetryPolicy, Service, Settings
from messaging.ambient import real_ambient
from messaging.core.delays import delay_key, delay_topology
from messaging.core.fault import Fault
from messaging.core.permissions import (
    Account,
    Sends,
    account_name,
    ctl_commands,
    definitions,
    operator_account,
    service_account,
    topology_account,
)
from messaging.core.topology import Declares, Names, Subscriptions
from messaging.errors import TopologyConflictError
from messaging.operators import Operator, open_operator
from messaging.security.development_files import Contract, init_development
from messaging.transports.amqp.transport import AmqpTransport
from scripts.dev_certs import Issued
from tests.support.shop import GetOrder, OrderPlaced, OrderView, PlaceOrder
from tests.support.tls import TlsNode, tls_of_client
from tests.support.waiting import eventually

pytestmark = [pytest.mark.broker, pytest.mark.timeout(300)]

GOOD, FLAKY, BAD = 1, 2, 3
OPERATOR: Final = "ops:alice"
QUICKLY: Final = RetryPolicy(immediate=0, delays_s=(0.2,))
BILLING_SENDS: Final = Sends(
    commands=frozenset({"orders.place_order", "orders.book"}), requests=frozenset({"orders.get_order"})
)


class Book(Command, name="orders.book", key="account"):
    account: str
    number: int


class Shop:
    """Two services and an operator, each with an account of its own.

    Attributes:
        heard: What billing heard: orders placed, faults.
        booked: What orders booked for one account.
        is_mended: Whether what fails for good works now.
    """

    def __init__(self, node: TlsNode, folder: Path, declares: Declares) -> None:
        self.node = node
        self.declares = declares
        self.names = Names(f"p{uuid4().hex[:12]}")
        self.prefix = f"{self.names.namespace}-"
        self.keys = folder / "keys"
        self.heard: list[str] = []
        self.booked: list[int] = []
        self.attempts: dict[int, int] = {}
        self.is_mended = False
        self.orders = Service("orders", self.settings_of("orders"), retry=QUICKLY, partitions=2)
        self.billing = Service("billing", self.settings_of("billing"), retry=QUICKLY)
        self._add_handlers()
        self._add_book()
        init_development(
            self.keys,
            {service.name: Contract(handles=service.subscriptions) for service in (self.orders, self.billing)},
            ambient=real_ambient(),
            operator=OPERATOR.removeprefix("ops:"),
        )

    def settings_of(self, identity: str) -> Settings:
        """Return the settings of a program that logs in by the certificate of this account."""
        user = account_name(identity, prefix=self.prefix)
        issued = self.node.authority.issue_client(user, user)
        return Settings(
            broker_url=self.node.tls_url,
            keys=self.keys,
            namespace=self.names.namespace,
            declare=self.declares,
            tls_ca_file=self.node.authority.certificate_file,
            tls_cert_file=issued.certificate,
            tls_key_file=issued.key,
        )

    def accounts(self) -> list[Account]:
        """Return everybody's rights."""
        total = self.names.shared()
        for service in (self.orders, self.billing):
            total += self.names.of_service(service.name, service.subscriptions)
        total += delay_topology(self.names, "orders")
        options: dict[str, Any] = {"declares": self.declares, "delays": ["orders"], "prefix": self.prefix}
        return [
            topology_account(self.names, total, f"{self.prefix}topology"),
            service_account(self.names, "orders", self.orders.subscriptions, sends=Sends(), **options),
            service_account(self.names, "billing", self.billing.subscriptions, sends=BILLING_SENDS, **options),
            operator_account(self.names, OPERATOR, ["orders"], delays=["orders"], prefix=self.prefix),
        ]

    def grant(self, folder: Path) -> None:
        """Make the users at the broker."""
        (folder / "definitions.json").write_text(json.dumps(definitions(self.accounts(), vhost="/", hashes={})))
        self.node.ctl("import_definitions", str(folder / "definitions.json"))

    async def apply(self) -> None:
        """Make the topology, as `messaging topology apply` does, with the account for it."""
        transport = AmqpTransport(
            [self.node.tls_url], ambient=real_ambient(), tls=tls_of_client(self.node, self._issued("topology"))
        )
        await transport.connect()
        total = self.names.shared()
        if self.declares is Declares.REPLIES:
            for service in (self.orders, self.billing):
                total += self.names.of_service(service.name, service.subscriptions)
        await transport.declare(total)
        await transport.aclose()

    async def apply_delays(self) -> None:
        """Make the delay levels, as `messaging topology apply --delays` does, with the account for it."""
        transport = AmqpTransport(
            [self.node.tls_url], ambient=real_ambient(), tls=tls_of_client(self.node, self._issued("topology"))
        )
        await transport.connect()
        await transport.declare(delay_topology(self.names, "orders"))
        await transport.aclose()

    @asynccontextmanager
    async def stranger(self, identity: str) -> AsyncIterator["Stranger"]:
        """Connect with an account's certificate and none of this library."""
        issued = self._issued(identity)
        context = ssl.create_default_context(cafile=self.node.authority.certificate_file)
        context.load_cert_chain(issued.certificate, issued.key)
        connection = await aiormq.connect(f"{self.node.tls_url}?auth=external", context=context)
        try:
            yield Stranger(connection)
        finally:
            await connection.close()

    def _issued(self, identity: str) -> Issued:
        user = account_name(identity, prefix=self.prefix)
        return self.node.authority.issue_client(user, user)

    def _add_handlers(self) -> None:
        @self.orders.on_command(PlaceOrder)
        async def place_order(command: PlaceOrder, context: Context) -> None:
            self.attempts[command.number] = context.attempt
            if command.number == FLAKY and context.attempt == 1:
                raise ConnectionError("try again")
            if command.number == BAD and not self.is_mended:
                raise Reject("never")
            await context.publish(OrderPlaced(number=command.number))

        @self.orders.on_request(GetOrder)
        async def get_order(request: GetOrder, context: Context) -> OrderView:
            return OrderView(status=f"order {request.number}")

        @self.billing.on_event(OrderPlaced)
        async def order_placed(event: OrderPlaced, context: Context) -> None:
            self.heard.append(f"placed {event.number}")

        @self.billing.on_fault(PlaceOrder)
        async def not_placed(fault: Fault, context: Context) -> None:
            self.heard.append(f"fault {fault.reason}")

    def _add_book(self) -> None:
        @self.orders.on_command(Book)
        async def book(command: Book, context: Context) -> None:
            if command.number == BAD and not self.is_mended:
                raise Reject("never")
            if command.number == FLAKY and context.attempt == 1:
                raise ConnectionError("try again")
            self.booked.append(command.number)


class Stranger:
    """Asks the broker; every question on its own channel, because a refusal ends it."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    async def may(self, ask: Callable[[Any], Awaitable[Any]]) -> bool:
        """Tell whether the broker lets it."""
        channel = await self._connection.channel()
        try:
            await ask(channel)
        except ChannelAccessRefused:
            return False
        finally:
            with suppress(Exception):
                await channel.close()
        return True


async def has_letters(operator: Operator, count: int) -> bool:
    return len(await operator.dead_letters.list("orders")) == count


def publish(exchange: str, key: str) -> Callable[[Any], Awaitable[Any]]:
    return lambda channel: channel.basic_publish(b"forged", exchange=exchange, routing_key=key)


def consume(queue: str) -> Callable[[Any], Awaitable[Any]]:
    async def ask(channel: Any) -> None:
        async def ignore(_: object) -> None:
            await asyncio.sleep(0)

        await channel.basic_consume(queue, ignore)

    return ask


def bind(queue: str, exchange: str, key: str) -> Callable[[Any], Awaitable[Any]]:
    return lambda channel: channel.queue_bind(queue, exchange, key)


@pytest.fixture(params=[Declares.REPLIES, Declares.OWN], ids=lambda declares: declares.value)
async def shop(request: pytest.FixtureRequest, tls_node: TlsNode, tmp_path: Path) -> Shop:
    """A shop whose accounts exist, and whose topology does as far as it is not its own to make."""
    shop = Shop(tls_node, tmp_path, request.param)
    shop.grant(tmp_path)
    await shop.apply()
    return shop


async def test_everything_works_within_the_rights(shop: Shop) -> None:
    async with AsyncExitStack() as stack:
        for service in (shop.orders, shop.billing):
            await stack.enter_async_context(service)

        for number in (GOOD, FLAKY, BAD):
            await shop.billing.send(PlaceOrder(number=number))
        await eventually(
            lambda: sorted(shop.heard) == ["fault never", "placed 1", "placed 2"], what=lambda: str(shop.heard)
        )
        assert shop.attempts[FLAKY] == 2
        answer = await shop.billing.request(GetOrder(number=7))
        assert answer.status == "order 7"

        operator = await stack.enter_async_context(open_operator(shop.settings_of(OPERATOR), OPERATOR))

        async def is_buried() -> bool:
            return [it.fault.reason for it in await operator.dead_letters.list("orders")] == ["never"]

        # The broker routes the letter and the fault, which was heard, to two queues in one go; each takes its own time.
        await eventually(is_buried, what="the letter is there")
        shop.is_mended = True
        report = await operator.dead_letters.replay("orders", reason="mended")
        assert (report.replayed, report.failed) == (1, 0)
        await eventually(lambda: "placed 3" in shop.heard, what="the replay was handled")
        assert (await operator.request(GetOrder(number=8))).status == "order 8"


async def test_delays_work_within_the_rights_and_let_nobody_do_more_than_send(shop: Shop) -> None:
    names = shop.names
    async with AsyncExitStack() as stack:
        for service in (shop.orders, shop.billing):
            await stack.enter_async_context(service)
        await shop.apply_delays()
        deliver_at = datetime.now(UTC) + timedelta(seconds=2.5)

        await shop.billing.send(PlaceOrder(number=GOOD), deliver_at=deliver_at)
        await eventually(lambda: shop.heard == ["placed 1"], what=lambda: str(shop.heard))

        assert datetime.now(UTC) >= deliver_at
        tried = {
            "no way at all": publish(names.delay("orders"), "orders.place_order.v1"),
            "a level in the middle": publish(names.delay("orders", 3), delay_key(3)),
            "what waits there": consume(names.delay("orders", 3)),
            "a longer wait for all": lambda channel: channel.queue_delete(names.delay("orders", 3)),
            "a way of its own": bind(names.queue("billing", "events"), names.delay("orders"), "#"),
        }
        billing = await stack.enter_async_context(shop.stranger("billing"))
        assert [what for what, ask in tried.items() if await billing.may(ask)] == []
        for identity in ("orders", "topology"):
            stranger = await stack.enter_async_context(shop.stranger(identity))
            assert not await stranger.may(publish(names.delay("orders"), delay_key(3)))


async def test_partitions_work_within_the_rights_and_open_nothing_of_others(shop: Shop) -> None:
    names = shop.names
    async with AsyncExitStack() as stack:
        for service in (shop.orders, shop.billing):
            await stack.enter_async_context(service)

        await shop.billing.send_many(Book(account="a", number=number) for number in (GOOD, FLAKY, BAD, 4))
        await eventually(lambda: shop.booked == [GOOD, FLAKY, 4], what=lambda: str(shop.booked))
        operator = await stack.enter_async_context(open_operator(shop.settings_of(OPERATOR), OPERATOR))
        await eventually(lambda: has_letters(operator, 1), what="the letter is there")
        shop.is_mended = True
        report = await operator.dead_letters.replay("orders", reason="mended")
        assert (report.replayed, report.failed) == (1, 0)
        await eventually(lambda: shop.booked == [GOOD, FLAKY, 4, BAD], what=lambda: str(shop.booked))

        own_reply, partition = names.reply_queue("billing", "0" * 16), names.partition("orders", 0)
        every_slot = "orders.book.v1.0" + ".*" * 11
        tried = {
            "reading another's partition": consume(partition),
            "deleting it": lambda channel: channel.queue_delete(partition),
            "going there directly": publish(names.return_exchange("orders"), partition),
            "hearing what has a key": bind(own_reply, names.commands, every_slot),
        }
        billing = await stack.enter_async_context(shop.stranger("billing"))
        await billing.may(lambda channel: channel.queue_declare(own_reply))
        assert [what for what, ask in tried.items() if await billing.may(ask)] == []
        # Another number of partitions is for those who declare.
        topology = await stack.enter_async_context(shop.stranger("topology"))
        assert await topology.may(lambda channel: channel.queue_unbind(partition, names.commands, every_slot))


async def test_what_nobody_made_is_missed_by_name(tls_node: TlsNode, tmp_path: Path) -> None:
    shop = Shop(tls_node, tmp_path, Declares.REPLIES)
    shop.grant(tmp_path)

    with pytest.raises(TopologyConflictError, match="run `messaging topology apply`"):
        await shop.orders.start()


async def test_a_stolen_certificate_opens_nothing_of_others(shop: Shop) -> None:
    names = shop.names
    await _made(shop)
    orders_commands, own_reply = names.queue("orders", "commands"), names.reply_queue("billing", "0" * 16)
    tried: Mapping[str, Callable[[Any], Awaitable[Any]]] = {
        "another's way back": publish(names.return_exchange("orders"), orders_commands),
        "another's rung": publish(names.rung("orders", 200), orders_commands),
        "another's dead letters by force": publish(names.undeliverable_exchange("orders"), ""),
        "any queue, by the default exchange": publish("", orders_commands),
        "the broker's own exchange": publish("amq.topic", "x"),
        "another's event": publish(names.events, "orders.order_placed.v1"),
        "a dead letter in another's name": publish(names.dead, "dead.orders"),
        "a command that policy does not list": publish(names.commands, "orders.cancel_order.v1"),
        "a reply, without answering anything": publish(names.replies, own_reply),
        "reading another's work": consume(orders_commands),
        "reading another's dead letters": consume(names.queue("orders", "dead")),
        "reading its own dead letters": consume(names.queue("billing", "dead")),
        "emptying another's queue": lambda channel: channel.queue_purge(orders_commands),
        "deleting another's queue": lambda channel: channel.queue_delete(orders_commands),
        "deleting what all share": lambda channel: channel.exchange_delete(names.events),
        "a queue of another's name": lambda channel: channel.queue_declare(names.queue("orders", "more")),
        "a queue of no name": lambda channel: channel.queue_declare("", exclusive=True),
        "an exchange": lambda channel: channel.exchange_declare(names.queue("billing", "x"), exchange_type="fanout"),
        "every event": bind(own_reply, names.events, "#"),
        "another's events": bind(own_reply, names.events, "orders.other.v1"),
        "another's replies": bind(own_reply, names.replies, names.reply_queue("orders", "0" * 16)),
        "everybody's replies": bind(own_reply, names.replies, "#"),
        "everybody's dead letters": bind(own_reply, names.dead, "#"),
        "everybody's commands": bind(own_reply, names.commands, "#"),
    }
    async with shop.stranger("billing") as stranger:
        assert await stranger.may(lambda channel: channel.queue_declare(own_reply))

        passed = [what for what, ask in tried.items() if await stranger.may(ask)]

        assert passed == []
        assert await stranger.may(publish(names.events, "billing.paid.v1"))
        assert await stranger.may(publish(names.commands, "orders.place_order.v1"))
        assert await stranger.may(publish(names.dead, "dead.billing.orders"))
        assert await stranger.may(bind(own_reply, names.replies, own_reply))


async def test_what_it_needs_of_its_own_depends_on_who_declares(shop: Shop) -> None:
    await _made(shop)
    own = shop.names.queue("billing", "events")
    async with shop.stranger("billing") as stranger:
        may_delete = await stranger.may(lambda channel: channel.queue_delete(own))

    assert may_delete is (shop.declares is Declares.OWN)


async def test_an_operator_reads_the_dead_letters_it_was_given_and_nothing_else(shop: Shop) -> None:
    names = shop.names
    await _made(shop)
    async with shop.stranger(OPERATOR) as stranger:
        assert await stranger.may(consume(names.queue("orders", "dead")))
        assert not await stranger.may(consume(names.queue("billing", "dead")))
        assert not await stranger.may(consume(names.queue("orders", "commands")))
        assert not await stranger.may(publish(names.return_exchange("billing"), names.queue("billing", "events")))
        assert not await stranger.may(lambda channel: channel.queue_delete(names.queue("orders", "dead")))


async def test_the_account_of_the_topology_neither_sends_nor_reads(shop: Shop) -> None:
    names = shop.names
    await _made(shop)
    async with shop.stranger("topology") as stranger:
        for exchange, key in (
            (names.commands, "orders.place_order.v1"),
            (names.events, "orders.order_placed.v1"),
            (names.dead, "dead.orders"),
        ):
            assert not await stranger.may(publish(exchange, key))
        assert not await stranger.may(consume(names.queue("orders", "dead")))


def test_commands_grant_what_definitions_grant(tls_node: TlsNode) -> None:
    user = f"c{uuid4().hex[:12]}-"
    account = service_account(Names("shop"), "orders", Subscriptions(), sends=BILLING_SENDS, prefix=user)

    for command in ctl_commands([account], vhost="/"):
        password = [uuid4().hex] if command[0] == "add_user" else []
        tls_node.ctl(*command, *password)

    granted = json.loads(tls_node.ctl("list_user_permissions", account.user, "--formatter", "json"))
    narrowed = json.loads(tls_node.ctl("list_user_topic_permissions", account.user, "--formatter", "json"))
    assert granted == [{"vhost": "/", "configure": account.configure, "write": account.write, "read": account.read}]
    assert {row["exchange"]: (row["write"], row["read"]) for row in narrowed} == {
        topic.exchange: (topic.write, topic.read) for topic in account.topics
    }


async def _made(shop: Shop) -> None:
    """Let each service declare what is its own to make."""
    for service in (shop.orders, shop.billing):
        async with service:
            pass
