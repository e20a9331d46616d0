"""Keys for the services of a benchmark, in files as in an installation."""

from pathlib import Path

from messaging.ambient import real_ambient
from messaging.core.topology import Subscriptions
from messaging.security.development_files import Contract, init_development

__all__ = ["ORDER_PLACED", "write_keys"]

ORDER_PLACED = "orders.order_placed"


def write_keys(folder: Path, *, bystanders: int = 0, subscribers: int = 0) -> None:
    """Make keys and a trust bundle for `orders` and `shop`.

    Args:
        folder: Made if it is missing.
        bystanders: Further services that the bundle knows, `bystander0` and so on.
        subscribers: Further services that hear `orders.order_placed`, `reader0` and so on.
    """
    handled = ("orders.place_order", "orders.place_blob")
    orders = Subscriptions(
        commands=frozenset((name, 1) for name in handled),
        requests=frozenset({("orders.get_order", 1)}),
    )
    hears = Subscriptions(events=frozenset({(ORDER_PLACED, 1)}))
    asked = frozenset({*handled, "orders.get_order"})
    # Each says what it sends: where everybody may write to everybody, rules grow with the square of the services.
    contracts = {
        "orders": Contract(handles=orders, sends=frozenset()),
        "shop": Contract(handles=Subscriptions(), sends=asked),
    }
    contracts |= {f"reader{number}": Contract(handles=hears, sends=asked) for number in range(subscribers)}
    contracts |= {
        f"bystander{number}": Contract(handles=Subscriptions(), sends=frozenset()) for number in range(bystanders)
    }
    init_development(folder, contracts, ambient=real_ambient())
