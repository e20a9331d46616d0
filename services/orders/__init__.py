"""The orders service. Run it with `python -m services.orders` or `messaging run services.orders:orders`.

The service object is loaded when it is first asked for: others import the contract of this package and must not pay for
its handlers and database.
"""

import importlib
from typing import Final

from messaging import Service

__all__ = ["orders"]

_SERVICE: Final = "orders"


def __getattr__(name: str) -> Service:
    if name != _SERVICE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    service: Service = importlib.import_module(f"{__name__}.service").orders
    return service
