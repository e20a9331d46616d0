"""Keys for the services of a benchmark, in files as in an installation."""

from itertools import pairwise
from pathlib import Path
from typing import Final, cast

from messaging.ambient import real_ambient
from messaging.core.topology import Subscriptions
from messaging.security.bundle import OPS_GROUP
from messaging.security.bundle_format import DEVELOPMENT_REALM, sign_bundle
from messaging.security.development import development_payload, encryption_entry, identity_entry
from messaging.security.development_files import Contract, init_development
from messaging.security.keyfile import keyring_file, write_keyring
from messaging.security.keyring import Keyring
from messaging.security.keys import DecryptionKey, SigningKey
from messaging.security.suite import SUITE_1
from messaging.security.trust import BUNDLE_FILE

__all__ = ["ORDER_PLACED", "write_crowd", "write_keys"]

ORDER_PLACED = "orders.order_placed"
OPERATOR: Final = "ops:dev"

Json = dict[str, object]


def write_keys(folder: Path, *, subscribers: int = 0) -> None:
    """Make keys and a trust bundle for `orders` and `shop`.

    Args:
        folder: Made if it is missing.
        subscribers: Further services that hear `orders.order_placed`, `reader0` and so on.
    """
    handled = ("orders.place_order", "orders.place_blob")
    orders = Subscriptions(
        commands=frozenset((name, 1) for name in handled),
        requests=frozenset({("orders.get_order", 1)}),
    )
    hears = Subscriptions(events=frozenset({(ORDER_PLACED, 1)}))
    asked = frozenset({*handled, "orders.get_order"})
    contracts = {
        "orders": Contract(handles=orders, sends=frozenset()),
        "shop": Contract(handles=Subscriptions(), sends=asked),
    }
    contracts |= {f"reader{number}": Contract(handles=hears, sends=asked) for number in range(subscribers)}
    init_development(folder, contracts, ambient=real_ambient())


def write_crowd(folder: Path, *, bystanders: int) -> None:
    """Make keys for `orders` and `shop`, and a trust bundle in which they are two of many.

    Its rules are those of a production: each service may send to one other, and the operator replays what a service
    owns there alone. In a bundle of development keys the operator's rules grow with the square of the services.

    Args:
        folder: Where to; made.
        bystanders: Further services that the bundle knows, `bystander0` and so on; their keys are not kept.
    """
    realm = f"{DEVELOPMENT_REALM}crowd"
    root, group_key = SigningKey.generate(realm), DecryptionKey.generate(realm, SUITE_1)
    names = ["orders", "shop", *(f"bystander{number}" for number in range(bystanders))]
    keyrings = {name: Keyring.generate(name, realm=realm, roots=(root.public,)) for name in (*names, OPERATOR)}
    folder.mkdir(parents=True, mode=0o700)
    for name in ("orders", "shop"):
        write_keyring(keyrings[name], folder / keyring_file(name))
    send = [_rule("shop", "command", "orders"), _rule("shop", "request", "orders")]
    send += [_rule(sender, "command", owner) for sender, owner in pairwise(names[2:])]
    payload = development_payload(
        realm=realm,
        version=1,
        issued_at_ms=real_ambient().now_ms(),
        identities={name: identity_entry(keyrings[name]) for name in names},
        group_keys=[encryption_entry(group_key)],
        send=send,
        subscribe={},
    )
    groups = {OPS_GROUP: {"enc": [encryption_entry(group_key)], "members": [OPERATOR]}}
    replay = [{"operator": OPERATOR, "name": f"{name}.*", "to": name, "force": False} for name in names]
    payload |= {
        "operators": {OPERATOR: identity_entry(keyrings[OPERATOR])},
        "groups": groups,
        "policy": {**cast("Json", payload["policy"]), "replay": replay},
    }
    (folder / BUNDLE_FILE).write_bytes(sign_bundle(payload, [root]))


def _rule(sender: str, kind: str, owner: str) -> Json:
    return {"from": sender, "kind": kind, "name": f"{owner}.*", "to": owner}
