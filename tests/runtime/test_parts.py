"""The parts of one service belong together."""

from messaging import Settings
from messaging.assembly import build
from messaging.core.topology import Subscriptions


def test_parts_share_identity_names_and_keys() -> None:
    subscriptions = Subscriptions(commands=frozenset({("orders.place_order", 1)}))

    parts = build(Settings.development(namespace="shop"), "orders", subscriptions)

    assert (parts.identity, parts.keyring.service) == ("orders", "orders")
    assert parts.subscriptions is subscriptions
    assert parts.replies.queue == parts.names.reply_queue("orders", parts.instance)
    assert parts.replies.queue.startswith("shop.orders.replies.")
    assert len(parts.instance) == 16
